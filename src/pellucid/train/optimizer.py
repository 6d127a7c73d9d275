"""AdamW with float32 state, whatever the dtype of the weights.

The optimiser writes the very tensors that the sampler reads. Where weights are bfloat16,
gradients are accumulated in float32 as backward produces them, and a float32 master copy is
stepped: adding many small bfloat16 gradients, or a 1e-6 update to a bfloat16 weight, would lose
them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pellucid.config import TrainConfig
from pellucid.errors import NumericsError


class Optimizer:
    """AdamW over all parameters of a model, biases and norms without weight decay."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.parameters = dict(model.named_parameters())
        self.masters: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            self.masters[name] = self._master_of(parameter)
        matrices = [m for m in self.masters.values() if m.dim() >= 2]
        vectors = [m for m in self.masters.values() if m.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.adam_eps,
            fused=True,
        )

    def step(self, learning_rate: float, *, where: str) -> float:
        """Clips the global norm, steps, clears the gradients; returns the norm before clipping.

        Raises NumericsError, naming `where` and a tensor, if a gradient is not finite; nothing is
        changed then.
        """
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        if not gradients:
            return 0.0
        norm = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise NumericsError(f"{where}: gradient of {self._first_bad()} is not finite")
        nn.utils.clip_grads_with_norm_(
            list(self.masters.values()), self.config.grad_clip, torch.tensor(norm)
        )
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self._publish()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue with the same bits: masters, both moments and step
        counts.
        """
        out: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            out[f"master.{name}"] = master.detach()
            for key, value in self.adam.state.get(master, {}).items():
                out[f"adam.{key}.{name}"] = value
        return out

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()`; weights are rewritten in place, where the sampler reads them."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(state[f"master.{name}"])
                moments = {
                    key: state[f"adam.{key}.{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"adam.{key}.{name}" in state
                }
                if moments:
                    self.adam.state[master] = {
                        key: value.to(master.device, copy=True) for key, value in moments.items()
                    }
        self._publish()

    def _master_of(self, parameter: Tensor) -> Tensor:
        if parameter.dtype == torch.float32:
            return parameter
        master = parameter.detach().float().requires_grad_()

        def accumulate(p: Tensor) -> None:
            if p.grad is None:
                return
            if master.grad is None:
                master.grad = p.grad.float()
            else:
                master.grad.add_(p.grad)
            p.grad = None

        parameter.register_post_accumulate_grad_hook(accumulate)
        return master

    @torch.no_grad()
    def _publish(self) -> None:
        """Copies masters into the weights, in place."""
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])

    def _first_bad(self) -> str:
        for name, master in self.masters.items():
            if master.grad is not None and not bool(torch.isfinite(master.grad).all()):
                return name
        return "the global norm"
