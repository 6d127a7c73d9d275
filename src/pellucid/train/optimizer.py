"""AdamW with float32 state, whatever the dtype of the weights.

The optimiser writes the very tensors that the sampler reads. Where weights are bfloat16,
gradients are accumulated in float32 as backward produces them, on a GPU by the very product that
makes them (`kernels.matmul`), and a float32 master copy is stepped: adding many small bfloat16
gradients, or a 1e-6 update to a bfloat16 weight, would lose them. float32 weights are their own
masters, and autograd accumulates their gradients.

Memory, in bytes a parameter beside the weights themselves:

    weights    master  gradient  two moments
    bfloat16      4        4          8        = 16
    float32       0        4          8        = 12
"""

from __future__ import annotations

import math
import weakref
from typing import Protocol

import torch
from torch import Tensor, nn

from pellucid.errors import NumericsError

_ALIGNMENT = 64
"""Elements: each gradient starts at a multiple of 256 bytes, as an allocation of its own would."""


class OptimizerSettings(Protocol):
    """What the optimiser reads of a section of the recipe, be it [train] or [sft]."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def grad_clip(self) -> float: ...


class Optimizer:
    """AdamW over all parameters of a model that take gradients, biases and norms without weight
    decay.

    Gradients of bfloat16 weights lie in one float32 buffer, so that clearing them and taking their
    norm is one operation each; the masters' `.grad` are views of it.
    """

    def __init__(self, model: nn.Module, config: OptimizerSettings) -> None:
        self.config = config
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters: dict[str, Tensor] = {}
        self._apart: dict[Tensor, Tensor] = {}
        """Parameter -> master, where they are two tensors."""
        self._flat: Tensor | None = None
        """All their gradients; None until the first one."""
        self._has_gradients = False
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

    @staticmethod
    def bytes_per_parameter(dtype: torch.dtype) -> int:
        """Bytes that the optimiser holds for a parameter of this type, the weight not counted."""
        return 12 if dtype == torch.float32 else 16

    def float32_grad(self, parameter: Tensor) -> Tensor | None:
        """The float32 sum, of the parameter's shape, to which a backward pass may add its gradient
        instead of giving it to autograd; cleared by `step`.

        None for a float32 parameter: autograd itself adds in float32. Ask only on the way to a
        backward pass: the next `step` takes it that a gradient came.
        """
        master = self._apart.get(parameter)
        if master is None:
            return None
        self._has_gradients = True
        return self._grad_of(master)

    def step(self, learning_rate: float, *, where: str) -> float:
        """Clips the global norm, steps, clears the gradients; returns the norm before clipping.

        Raises NumericsError, naming `where` and a tensor, if a gradient is not finite; the
        gradients are cleared and nothing else is changed then, so that training can go on from the
        last checkpoint. Waits for the device once, after everything has been given to it.
        """
        gradients = self._gradients()
        if not gradients:
            return 0.0
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        total = nn.utils.get_total_norm(gradients)
        if self._apart:
            self._step_unless_broken(total)
            norm = float(total)
        else:
            norm = float(total)
            if math.isfinite(norm):
                nn.utils.clip_grads_with_norm_(
                    list(self.masters.values()), self.config.grad_clip, total
                )
                self.adam.step()
        broken = None if math.isfinite(norm) else self._first_bad()
        self.clear_gradients()
        if broken is not None:
            raise NumericsError(f"{where}: gradient of {broken} is not finite")
        return norm

    @torch.no_grad()
    def clear_gradients(self) -> None:
        """Forgets what has been accumulated."""
        self._has_gradients = False
        if self._flat is not None:
            self._flat.zero_()
        for parameter in self.parameters.values():
            parameter.grad = None

    def release_gradients(self) -> None:
        """Forgets what has been accumulated and frees its memory until the next backward pass."""
        self.clear_gradients()
        self._flat = None
        for master in self._apart.values():
            master.grad = None

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
        """Restores `state()`; weights are rewritten in place, where the sampler reads them.
        Gradients accumulated before belong to another state and are cleared.
        """
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
        self.clear_gradients()
        self._publish()

    def _step_unless_broken(self, total: Tensor) -> None:
        """Queues clipping, step and publication; a norm that is not finite makes the device leave
        masters and moments alone.
        """
        # AdamW divides by grad_scale while it reads the gradients, which saves a pass over them.
        self.adam.grad_scale = ((total + 1e-6) / self.config.grad_clip).clamp(min=1.0)
        self.adam.found_inf = torch.isfinite(total).logical_not().float()
        self.adam.step()
        self._publish()

    def _gradients(self) -> list[Tensor]:
        """What the norm is taken of; empty if no backward pass has been made."""
        own = [p.grad for p in self.parameters.values() if p.grad is not None]
        if self._has_gradients and self._flat is not None:
            own.append(self._flat)
        return own

    def _master_of(self, parameter: Tensor) -> Tensor:
        if parameter.dtype == torch.float32:
            return parameter
        master = parameter.detach().float().requires_grad_()
        self._apart[parameter] = master

        # torch holds hooks where Python's collector does not look: one that held this optimiser
        # would keep its states for as long as the process lives.
        owner = weakref.ref(self)

        def accumulate(p: Tensor) -> None:
            optimizer = owner()
            if optimizer is None or p.grad is None:
                return
            optimizer._has_gradients = True
            optimizer._grad_of(optimizer._apart[p]).add_(p.grad)
            p.grad = None

        parameter.register_post_accumulate_grad_hook(accumulate)
        itself = weakref.ref(parameter)

        def float32_grad() -> Tensor | None:
            optimizer, weight = owner(), itself()
            if optimizer is None or weight is None:
                return None
            return optimizer.float32_grad(weight)

        parameter.float32_grad = float32_grad  # type: ignore[attr-defined]
        return master

    def _grad_of(self, master: Tensor) -> Tensor:
        if master.grad is None:
            self._allocate_gradients()
        assert master.grad is not None, "every master has its place in the buffer"
        return master.grad

    def _allocate_gradients(self) -> None:
        masters = list(self._apart.values())
        sizes = [-(-m.numel() // _ALIGNMENT) * _ALIGNMENT for m in masters]
        self._flat = torch.zeros(sum(sizes), dtype=torch.float32, device=masters[0].device)
        for master, part in zip(masters, self._flat.split(sizes), strict=True):
            # Detached: autograd forbids changing in one grad mode a view made in the other.
            master.grad = part[: master.numel()].view(master.shape).detach()

    @torch.no_grad()
    def _publish(self) -> None:
        """Copies masters into the weights, in place."""
        if self._apart:
            torch._foreach_copy_(list(self._apart), list(self._apart.values()))

    def _first_bad(self) -> str:
        for name, master in self.masters.items():
            if master.grad is not None and not bool(torch.isfinite(master.grad).all()):
                return name
        return "the global norm"
