#!/usr/bin/env python3
"""Compiles the kernels to PTX by NVRTC, which needs no card: ptx.py LIBNVRTC [--check]. `just ptx` gets the library from PyPI.

All sources are one module. The first line of what it makes is the digest of the sources, the second that of the rest, so that a
test can tell whether they belong together. One text serves all cards as long as newer ones would get the same, which is checked.
With --check nothing is written: the exit code is 1 if something would change.
"""
import ctypes
import hashlib
import pathlib
import sys

LEAST, NEWER = 75, (80, 90)
here = pathlib.Path(__file__).parent
nvrtc = ctypes.CDLL(sys.argv[1])


def done(code, what, program=None):
    if code:
        if program:
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            print(log.value.decode(), file=sys.stderr)
        raise SystemExit(f"{what} failed with code {code}")


def compiled(source, generation):
    program = ctypes.c_void_p()
    done(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None), "nvrtcCreateProgram")
    # As the processor's kernels: a product is not fused with a sum, roots and quotients are exact.
    options = [f"--gpu-architecture=compute_{generation}".encode(), b"--fmad=false", b"--std=c++17"]
    done(nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)), "the compiler", program)
    size = ctypes.c_size_t()
    done(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)), "nvrtcGetPTXSize")
    text = ctypes.create_string_buffer(size.value)
    done(nvrtc.nvrtcGetPTX(program, text), "nvrtcGetPTX")
    return text.value


source = b"".join(path.read_bytes() for path in sorted(here.glob("*.cu")))
body = compiled(source, LEAST)
for newer in NEWER:
    if compiled(source, newer).replace(b"sm_%d" % newer, b"sm_%d" % LEAST) != body.replace(b"sm_%d" % newer, b"sm_%d" % LEAST):
        raise SystemExit(f"compute_{newer} wants a text of its own: check it in too, and let kernels.rs choose")
head = f"// sources {hashlib.sha256(source).hexdigest()}\n// text {hashlib.sha256(body).hexdigest()}\n"
path, text = here / f"compute_{LEAST}.ptx", head.encode() + body
changed = not path.exists() or path.read_bytes() != text
if changed and "--check" not in sys.argv:
    path.write_bytes(text)
print("the text", "has changed" if changed else "is as it was")
sys.exit(changed and "--check" in sys.argv)
