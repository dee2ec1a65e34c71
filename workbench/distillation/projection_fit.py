"""Ridge regression of a block's output projections on the teacher's states.

A block adds its last branch to its state, gate * (W h + b), with the gate and the input h
independent of W and b. So the W and b that bring the block's output nearest to a given state are a
linear least-squares problem. The gates differ from sample to sample, and with them the Gram
matrix of each channel; conjugate gradients solve all channels together, preconditioned by one Gram
matrix with averaged gates. Where gates do not vary, that is the solution in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..models.blocks import Block, State, streams_out
from ..records import BadInput

RIDGE = 1e-3  # of the Gram matrix's mean diagonal
PASSES = 12  # of conjugate gradients, each over all samples
ENOUGH = 1e-4  # of the residual at the start: the rest does not show in the loss
LAST_BRANCH = ("mlp", "cross", "attn")  # parts, the last of a block first

Add = Callable[[torch.Tensor], torch.Tensor]  # sums over processes


@dataclass(frozen=True)
class Example:
    """What a block is given and what it should return, of a batch.

    text_mask: (B, T), true at real text tokens.
    """

    arguments: dict[str, Any]
    goal: State
    text_mask: torch.Tensor | None = None


@dataclass
class Use:
    """One call of a projection: its input, its output cut off from all before it, and, once the
    block has run, what that output does to the error.
    """

    name: str
    inputs: torch.Tensor  # (.., K)
    output: torch.Tensor  # (.., C), a leaf
    gate: torch.Tensor | None = None  # (.., C): d block output / d output; 0 at padded tokens
    pull: torch.Tensor | None = None  # (.., C): gate * (goal - block output)


def output_projections(block: Block) -> dict[str, nn.Linear]:
    """The last linear of each stream's last branch, by name; without it where the block has none.

    Attention's output projection is one only where no MLP reads what it adds.
    """
    layout = {name: tuple(tensor.shape) for name, tensor in block.module.state_dict().items()}
    parts = block.row.fitted(layout).parts
    chosen: dict[str, nn.Linear] = {}
    for stream in ("", "text."):
        present = [f"{stream}{part}" for part in LAST_BRANCH if f"{stream}{part}" in parts]
        for part in present[:1]:
            shared = [rows.tensor for rows in parts[part].rows if rows.dim == 1]
            chosen |= last_linear(block.module, shared or parts[part].modules)
    return chosen


def last_linear(block: nn.Module, names: Sequence[str]) -> dict[str, nn.Linear]:
    """The last linear in modules of a block, by its name there."""
    linears: dict[str, nn.Linear] = {}
    for name in names:
        for inner, module in block.get_submodule(name).named_modules(prefix=name):
            if isinstance(module, nn.Linear):
                linears = {inner: module}
    return linears


class ProjectionFit:
    """The fit of one block to examples. `loss`: mean squared error over real tokens and channels
    of the streams that count, before the fit and after.

    The result is that of `numpy.linalg.lstsq` for each channel c of a projection, with rows gate *
    [h, 1] and targets (goal - output), and with ridge rows sqrt(ridge * u_c) I with target 0 for
    the change of the weights; u_c: the channel's mean squared gate over that of all channels. So
    the loss cannot rise. Raises BadInput for a block whose projections cannot be fitted.
    """

    def __init__(
        self,
        block: Block,
        streams: Sequence[str],
        examples: Sequence[Example],
        *,
        ridge: float = RIDGE,
        passes: int = PASSES,
        enough: float = ENOUGH,
        add: Add | None = None,
    ) -> None:
        self.block = block
        self.streams = streams
        self.examples = examples
        self.ridge = ridge
        self.passes = passes
        self.enough = enough
        self.add: Add = add or (lambda value: value)
        self.projections = output_projections(block)
        self.problems: dict[str, Problem] = {}

    def run(self) -> tuple[float, float]:
        """Fit; the loss before and after."""
        flags = [p.requires_grad for p in self.block.module.parameters()]
        self.block.module.requires_grad_(False)
        try:
            self._check()
            before = self._gather()
            for _ in range(self.passes):
                self._step()
            for name, problem in self.problems.items():
                problem.apply(self.projections[name])
            return before, self._loss()
        finally:
            for p, flag in zip(self.block.module.parameters(), flags, strict=True):
                p.requires_grad_(flag)

    # --- passes over the examples -----------------------------------------------------------------

    def _gather(self) -> float:
        """Gram matrices and right-hand sides; the loss as it is."""
        for example in self.examples:
            for use in self._uses(example):
                linear = self.projections[use.name]
                if use.name not in self.problems:
                    self.problems[use.name] = Problem.of(linear)
                self.problems[use.name].gather(use)
        for problem in self.problems.values():
            problem.start(self.add, self.ridge)
        return self._loss()

    def _step(self) -> None:
        """One step of conjugate gradients of every projection that is not there yet."""
        left = {name: problem for name, problem in self.problems.items() if not problem.done}
        if not left:
            return
        for problem in left.values():
            problem.product.zero_()
        for example in self.examples:
            for use in self._uses(example):
                if use.name in left:
                    left[use.name].multiply(use)
        for problem in left.values():
            problem.step(self.add, self.enough)

    def _loss(self) -> float:
        device = next(self.block.module.parameters()).device
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for example in self.examples:
            with torch.no_grad():
                output = streams_out(self.block.row, self.block.module(**example.arguments))
            for name, error in self._errors(output, example).items():
                kept = error[token_mask(name, error, example)]
                total[0] += kept.double().square().sum()
                total[1] += kept.numel()
        squares, count = self.add(total).tolist()
        return float(squares / max(count, 1))

    def _errors(self, output: State, example: Example) -> State:
        names = [name for name in self.streams if name in output and name in example.goal]
        return {name: example.goal[name].float() - output[name].float() for name in names}

    def _uses(self, example: Example) -> list[Use]:
        """The projections' uses in the block's forward, with gates and pulls."""
        with torch.enable_grad(), cut_off(self.projections) as uses:
            output = streams_out(self.block.row, self.block.module(**example.arguments))
            errors = self._errors({n: v.detach() for n, v in output.items()}, example)
            masks = {n: token_mask(n, e, example)[..., None].to(e) for n, e in errors.items()}
            leaves = [use.output for use in uses]
            gates = pulled(
                [output[n] for n in errors], leaves, [masks[n].expand_as(errors[n]) for n in errors]
            )
            pulls = pulled(
                [output[n] for n in errors], leaves, [masks[n] * errors[n] for n in errors]
            )
        for use, gate, pull in zip(uses, gates, pulls, strict=True):
            use.gate = gate
            use.pull = pull
        return [use for use in uses if use.gate is not None]

    # --- what can be fitted -----------------------------------------------------------------------

    def _check(self) -> None:
        """Raise BadInput unless the block adds each projection's output to its state, channel by
        channel, gated or not: moved outputs must move the state by the gates, once and twice.
        """
        example = self.examples[0]
        uses = self._uses(example)
        if not uses:
            raise self._refusal("no linear ends its last branch")
        expected = sum(moved_by_gate(use) for use in uses)
        base = self._moved(example, 0.0)
        for factor in (1.0, 2.0):
            moved = self._moved(example, factor)
            change = 0.0
            for name, error in moved.items():
                mask = token_mask(name, error, example)[..., None]
                change += float(((error - base[name]) * mask).square().sum())
            if abs(change - factor**2 * expected) > 0.05 * factor**2 * expected:
                raise self._refusal(f"what follows {', '.join(self.projections)} is not linear")

    def _moved(self, example: Example, factor: float) -> State:
        """The errors with the projections' outputs moved."""
        with torch.no_grad(), cut_off(self.projections, factor):
            output = streams_out(self.block.row, self.block.module(**example.arguments))
        return self._errors(output, example)

    def _refusal(self, reason: str) -> BadInput:
        path, index = self.block.place
        return BadInput(
            f"fit of block {index} of {path}: {reason}",
            "blocks that add the output of a linear to their state, gated or not",
            "remove fit from the stage",
        )


# --- a forward with the projections cut off -------------------------------------------------------


@contextmanager
def cut_off(projections: Mapping[str, nn.Linear], factor: float = 0.0) -> Iterator[list[Use]]:
    """The projections return leaves, so that gradients end there. factor: of a fixed random step
    that is added to them.
    """
    uses: list[Use] = []
    handles = []
    for name, linear in projections.items():
        hook = partial(_replace_output, name, factor, uses)
        handles.append(linear.register_forward_hook(hook))
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _replace_output(
    name: str, factor: float, uses: list[Use], module: nn.Module, args: Any, output: torch.Tensor
) -> torch.Tensor:
    use = Use(name, args[0].detach(), output.detach())
    if factor:
        return use.output + factor * step_of(use)
    use.output.requires_grad_()
    uses.append(use)
    return use.output


def step_of(use: Use) -> torch.Tensor:
    """A random step as large as the output, the same each time."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(use.output.shape, generator=generator).to(use.output)
    return noise * use.output.detach().std()


def moved_by_gate(use: Use) -> float:
    """How far that step moves the block's output, squared, if only the gate lies between."""
    assert use.gate is not None
    return float((use.gate * step_of(use)).square().sum())


def pulled(
    outputs: list[torch.Tensor], leaves: list[torch.Tensor], cotangents: list[torch.Tensor]
) -> tuple[torch.Tensor | None, ...]:
    """The gradients of sum(output * cotangent); None for a leaf that no output depends on."""
    reached = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not reached:
        return tuple(None for _ in leaves)
    return torch.autograd.grad(
        [outputs[i] for i in reached],
        leaves,
        [cotangents[i] for i in reached],
        retain_graph=True,
        allow_unused=True,
    )


def token_mask(name: str, state: torch.Tensor, example: Example) -> torch.Tensor:
    """(B, N), true at tokens that count: all but padded text."""
    mask = example.text_mask
    if name == "encoder_hidden_states" and mask is not None and mask.shape[1] == state.shape[1]:
        return mask
    return torch.ones(state.shape[:2], dtype=torch.bool, device=state.device)


# --- the least-squares problem of one projection --------------------------------------------------


@dataclass
class Problem:
    """Conjugate gradients for the change (C, K) of a projection's weights, float64. K counts a
    last column of ones where the projection has a bias.
    """

    gram: torch.Tensor  # (K, K): sum of v h h', v: a token's squared gate, mean over channels
    gates: torch.Tensor  # (C,): sum of squared gates
    residual: torch.Tensor  # (C, K): at first the sum of gate * error * h
    has_bias: bool
    done: bool = False

    @classmethod
    def of(cls, linear: nn.Linear) -> Problem:
        has_bias = linear.bias is not None
        width = linear.in_features + has_bias
        zeros = partial(torch.zeros, dtype=torch.float64, device=linear.weight.device)
        return cls(
            zeros(width, width),
            zeros(linear.out_features),
            zeros(linear.out_features, width),
            has_bias,
        )

    def rows(self, use: Use) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens, K) inputs and (tokens, C) gates."""
        assert use.gate is not None
        inputs = use.inputs.double().flatten(0, -2)
        if self.has_bias:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        return inputs, use.gate.double().flatten(0, -2)

    def gather(self, use: Use) -> None:
        assert use.pull is not None
        inputs, gates = self.rows(use)
        weight = gates.square().mean(1, keepdim=True)
        self.gram += (weight * inputs).T @ inputs
        self.gates += gates.square().sum(0)
        self.residual += use.pull.double().flatten(0, -2).T @ inputs

    def start(self, add: Add, ridge: float) -> None:
        """The first direction, once all is gathered."""
        self.gram = add(self.gram)
        self.gates = add(self.gates)
        self.residual = add(self.residual)
        width = len(self.gram)
        self.ridge = ridge * float(self.gram.diagonal().mean())
        regular = self.gram + self.ridge * torch.eye(width).to(self.gram)
        self.factor = torch.linalg.cholesky(regular)
        self.scale = (self.gates / self.gates.mean().clamp_min(1e-300)).clamp_min(1e-12)[:, None]
        self.change = torch.zeros_like(self.residual)
        self.product = torch.zeros_like(self.residual)
        self.first = float(self.residual.norm())
        self.direction = self.preconditioned()
        self.energy = float((self.residual * self.direction).sum())
        self.done = self.energy <= 0

    def preconditioned(self) -> torch.Tensor:
        return torch.cholesky_solve(self.residual.T, self.factor).T / self.scale

    def multiply(self, use: Use) -> None:
        """Add this use's part of the matrix times the direction."""
        inputs, gates = self.rows(use)
        self.product += (gates.square() * (inputs @ self.direction.T)).T @ inputs

    def step(self, add: Add, enough: float) -> None:
        product = add(self.product) + self.ridge * self.scale * self.direction
        length = self.energy / float((self.direction * product).sum())
        self.change += length * self.direction
        self.residual = self.residual - length * product
        z = self.preconditioned()
        energy = float((self.residual * z).sum())
        self.direction = z + energy / self.energy * self.direction
        self.energy = energy
        self.done = energy <= 0 or float(self.residual.norm()) <= enough * self.first

    @torch.no_grad()
    def apply(self, linear: nn.Linear) -> None:
        """Add the change to the weights."""
        width = linear.in_features
        linear.weight.copy_((linear.weight.double() + self.change[:, :width]).to(linear.weight))
        if self.has_bias:
            linear.bias.copy_((linear.bias.double() + self.change[:, width]).to(linear.bias))
