"""The reverse KL over the whole vocabulary: values, gradients, chunks, precisions."""

import pytest
import torch

from pellucid.algo.divergence import Head, linear_reverse_kl


def make_heads(dtype: torch.dtype = torch.float64, more_rows: int = 0) -> tuple[Head, Head]:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    student = Head(draw(7, 4).requires_grad_(), draw(11, 4).requires_grad_())
    return student, Head(draw(7, 6), draw(11 + more_rows, 6))


def plain(student: Head, teacher: Head, temperature: float) -> torch.Tensor:
    """[T], by autograd."""
    own = (student.hidden @ student.weight.t() / temperature).log_softmax(-1)
    other = (teacher.hidden @ teacher.weight.t() / temperature).log_softmax(-1)
    return (own.exp() * (own - other[:, : own.shape[1]])).sum(-1)


@pytest.mark.parametrize(
    ("temperature", "chunk", "more_rows"), [(1.0, None, 0), (0.6, 3, 0), (1.0, 7, 5)]
)
def test_values_and_gradients_are_those_of_the_plain_way(temperature, chunk, more_rows) -> None:
    student, teacher = make_heads(more_rows=more_rows)
    exact = plain(student, teacher, temperature)
    (3.0 * 0.25 * exact.sum()).backward()
    expected = [student.hidden.grad.clone(), student.weight.grad.clone()]
    student.hidden.grad = student.weight.grad = None
    found = linear_reverse_kl(student, teacher, scale=0.25, temperature=temperature, chunk=chunk)
    (3.0 * found.loss).backward()
    torch.testing.assert_close(found.values, exact)
    torch.testing.assert_close(found.loss, 0.25 * exact.sum())
    torch.testing.assert_close([student.hidden.grad, student.weight.grad], expected)
    own = (student.hidden @ student.weight.t() / temperature).softmax(-1)
    torch.testing.assert_close(found.entropy, torch.special.entr(own).sum(-1))
    assert not found.values.requires_grad


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    student, _ = make_heads()
    found = linear_reverse_kl(student, Head(*(part.detach() for part in student)), scale=1.0)
    found.loss.backward()
    assert found.values.abs().max() < 1e-12
    assert student.hidden.grad.abs().max() < 1e-12


def test_the_gradient_of_the_weight_can_be_added_up_apart() -> None:
    student, teacher = make_heads(torch.bfloat16)
    apart = torch.ones(11, 4)
    linear_reverse_kl(student, teacher, scale=0.5, weight_grad=apart).loss.backward()
    assert student.weight.grad is None
    assert student.hidden.grad.dtype == torch.bfloat16
    wide = [Head(*(p.detach().float().requires_grad_() for p in h)) for h in (student, teacher)]
    (0.5 * plain(*wide, 1.0).sum()).backward()
    torch.testing.assert_close(apart - 1.0, wide[0].weight.grad, atol=1e-5, rtol=1e-4)


def test_a_teacher_that_lacks_tokens_of_the_student_is_our_own_mistake() -> None:
    student, teacher = make_heads()
    with pytest.raises(AssertionError, match="knows every token"):
        linear_reverse_kl(student, Head(teacher.hidden, teacher.weight[:10]), scale=1.0)
