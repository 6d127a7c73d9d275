"""Cold start: thousands of readable samples of R1-Zero, and a base fine-tuned on them: Dev1 (paper,
B.3.2).

From here on thinking and summary are separate: the sampler's tagged answers take the chat form.
"""

from __future__ import annotations

from pellucid.config_stages import ColdStartConfig
from pellucid.pipeline.curated_sft import CuratedSft
from pellucid.pipeline.stage import StageContext


def run(context: StageContext, config: ColdStartConfig) -> None:
    """Runs the stage in its folder, or continues it. Raises as `CuratedSft` and `fine_tune` do."""
    CuratedSft(context, config).run()
