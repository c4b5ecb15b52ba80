"""Losses of TEMI and TURTLE by PyTorch in double precision: `python make.py` writes expected.json beside itself.

Written from the formulas of the papers (arXiv 2303.17896, eqs. 6 to 9; arXiv 2406.07236, eqs. 9 to 12).
"""

import json
import pathlib

import torch


def wave(step, phase, scale=1.0):
    return scale * torch.sin(step * torch.arange(30, dtype=torch.float64) + phase).reshape(6, 5)


def rounded(t):
    return [float(f"{v:.12g}") for v in t.detach().flatten().tolist()]


temi = []
for beta, student, teacher in [(0.6, 0.1, 0.1), (1.0, 0.5, 0.2), (0.5, 1.0, 1.0)]:
    scores = wave(0.9, 0.1).requires_grad_()
    s = [torch.softmax(x / student, 1) for x in (scores, wave(0.7, 0.5))]
    t = [torch.softmax(x / teacher, 1) for x in (wave(0.8, 0.3), wave(0.6, 0.9))]
    m = 0.9 * torch.full((5,), 0.2, dtype=torch.float64) + 0.1 * torch.cat(t).mean(0)
    w = (t[0] * t[1]).sum(1)

    def information(a, b):
        return ((a * b) ** beta / m).sum(1).log()

    loss = -0.5 * (w * (information(s[0], t[1]) + information(s[1], t[0]))).mean()
    (gradient,) = torch.autograd.grad(loss, scores)
    temi.append(
        {
            "beta": beta,
            "student_temperature": student,
            "teacher_temperature": teacher,
            "marginal": rounded(m),
            "weights": rounded(w),
            "loss": loss.item(),
            "gradient": rounded(gradient),
        }
    )

task = [wave(0.9, 0.1, 2.0).requires_grad_(), wave(0.7, 0.5, 2.0).requires_grad_()]
inner = [wave(0.8, 0.3, 2.0).requires_grad_(), wave(0.6, 0.9, 2.0).requires_grad_()]
each = [torch.softmax(x, 1) for x in task]
labels = sum(each) / 2


def cross_entropy(logits, target):
    return -(target * torch.log_softmax(logits, 1)).sum(1).mean()


first = cross_entropy(inner[0], labels.detach())
(inner_gradient,) = torch.autograd.grad(first, inner[0])
error = sum(cross_entropy(x.detach(), labels) for x in inner)
spread = sum(-(p.mean(0) * p.mean(0).log()).sum() for p in each)
total = error - 10.0 * spread
outer_gradients = torch.autograd.grad(total, task)
turtle = {
    "labels": rounded(labels),
    "inner": first.item(),
    "inner_gradient": rounded(inner_gradient),
    "error": error.item(),
    "spread": spread.item(),
    "total": total.item(),
    "outer_gradients": [rounded(g) for g in outer_gradients],
}
golden = {"made_by": "tests/golden/heads/make.py", "torch": torch.__version__, "temi": temi, "turtle": turtle}
path = pathlib.Path(__file__).parent / "expected.json"
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
