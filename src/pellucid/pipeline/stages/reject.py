"""Rejection sampling from Dev2, general data beside it, and the base fine-tuned on both: Dev3
(paper, B.3.3).

Against the cold start only values differ: filters of long paragraphs and code, and general data.
"""

from __future__ import annotations

from pellucid.config_stages import RejectConfig
from pellucid.pipeline.curated_sft import CuratedSft
from pellucid.pipeline.stage import StageContext


def run(context: StageContext, config: RejectConfig) -> None:
    """Runs the stage in its folder, or continues it. Raises as `CuratedSft` and `fine_tune` do."""
    CuratedSft(context, config).run()
