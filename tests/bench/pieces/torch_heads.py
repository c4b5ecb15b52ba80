"""Epochs of SCAN's heads on cached features in PyTorch: all heads in one product, fused Adam, validation after each epoch."""

import math

import ground
import torch

args = ground.settings(rows=60_000, side=23, heads=5, clusters=10, batch=128, epochs=2)
torch.set_num_threads(ground.THREADS)
torch.manual_seed(0)
H, K, B, N, D = args.heads, args.clusters, args.batch, args.rows, args.side**2
features = torch.from_numpy(ground.pictures(N, args.side, 1).reshape(N, D)).float().div_(255).sub_(0.5).div_(0.2887)
table = (torch.arange(N)[:, None] + 37 * torch.arange(1, 21)[None]) % N
candidates = torch.cat([torch.arange(N)[:, None], table], 1)
weight = torch.empty(H * K, D).uniform_(-1, 1).div_(math.sqrt(D)).requires_grad_()
bias = torch.empty(H * K).uniform_(-1, 1).div_(math.sqrt(D)).requires_grad_()
optimizer = torch.optim.Adam([weight, bias], 1e-4, weight_decay=1e-4, fused=True)
best = (math.inf, None)


def train():
    order = torch.randperm(N)
    partners = candidates.gather(1, torch.randint(0, candidates.shape[1], (N, 1)))[:, 0]
    curve = torch.zeros(3)
    for rows in order[: N // B * B].view(-1, B):
        both = features[torch.cat([rows, partners[rows]])]
        log = torch.addmm(bias, both, weight.T).view(2, B, H, K).log_softmax(-1)
        consistency = -(log[0] + log[1]).logsumexp(-1).clamp(min=-100).mean(0)
        mean = log[0].exp().mean(0).clamp(min=1e-8)
        entropy = -(mean * mean.log()).sum(-1)
        loss = (consistency - 5 * entropy).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        # The curve wants the loss of every step, and a loss that is not finite ends the run.
        curve += torch.stack([loss, consistency.mean(), entropy.mean()]).detach()
        assert math.isfinite(loss.item())


@torch.no_grad()
def validate():
    global best
    p = torch.addmm(bias, features, weight.T).view(N, H, K).softmax(-1)
    total = torch.zeros(H)
    for column in range(6):
        total -= (p * p[candidates[:, column]]).sum(-1).log().clamp(min=-100).mean(0)
    mean = p.mean(0)
    loss = total / 6 + (mean * mean.log()).sum(-1)
    if loss.min() < best[0]:
        best = (loss.min().item(), (weight.clone(), bias.clone(), torch.bincount(p[:, loss.argmin()].argmax(-1), minlength=K)))


def epoch():
    train()
    validate()


ground.answer(f"torch {torch.__version__}", ground.repeated(args.epochs, epoch), dim=D)
