"""Forward and all gradients of a 3x3 convolution in PyTorch."""

import ground
import torch
import torch.nn.functional as F

args = ground.settings(channels=64, side=32, batch=64, repeats=10, channels_last=0)
torch.set_num_threads(ground.THREADS)
layout = torch.channels_last if args.channels_last else torch.contiguous_format


def variable(*shape):
    return torch.from_numpy(ground.bells(*shape)).contiguous(memory_format=layout).requires_grad_()


x, w = variable(args.batch, args.channels, args.side, args.side), variable(args.channels, args.channels, 3, 3)


def work():
    y = F.conv2d(x, w, padding=1)
    return torch.autograd.grad(y, [x, w], torch.ones_like(y))


flop = 3 * 2 * args.batch * args.channels**2 * 9 * args.side**2
ground.answer(f"torch {torch.__version__}", ground.repeated(args.repeats, work), flop=flop)
