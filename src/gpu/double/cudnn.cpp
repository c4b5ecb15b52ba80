// A stand-in for the few functions of libcudnn.so.9 that are called: convolutions of f32 maps [N, H, W, C] by plain loops.
#include "driver.h"
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
enum { OK = 0, BAD_PARAMETER = 2000, NOT_SUPPORTED = 3000 };
enum { NHWC = 1, FLOAT = 0, CROSS_CORRELATION = 1, FMA_MATH = 3 };
struct Tensor { int n, c, h, w; };
struct Layer { int padding, stride, math; };
struct Result { int number, status; float time; size_t memory; int reproducible, math, reserved[3]; };
struct Handle { uint64_t stream; };
/// The algorithm that adds in any order, which must not be chosen, and the one that must.
enum { FAST = 0, REPRODUCIBLE = 1 };
/// Workspace that the second wants, and fills, so that one that is too small shows.
const size_t WORKSPACE = 4096;

Tensor* tensor(uint64_t of) { return reinterpret_cast<Tensor*>(of); }
Layer* layer(uint64_t of) { return reinterpret_cast<Layer*>(of); }

/// Sizes that belong together.
bool fit(const Tensor& x, const Tensor& w, const Layer& l, const Tensor& y) {
    auto side = [&](int side, int kernel) { return (side + 2 * l.padding - kernel) / l.stride + 1; };
    return l.math == FMA_MATH && x.n == y.n && x.c == w.c && y.c == w.n && y.h == side(x.h, w.h) && y.w == side(x.w, w.w);
}

int algorithms(uint64_t x, uint64_t w, uint64_t l, uint64_t y, int asked, int* found, Result* results) {
    if (!fit(*tensor(x), *tensor(w), *layer(l), *tensor(y))) return BAD_PARAMETER;
    if (asked < 3) return BAD_PARAMETER;
    results[0] = {7, NOT_SUPPORTED, -1, 0, 1, FMA_MATH, {}};
    results[1] = {FAST, OK, 1, 0, 0, FMA_MATH, {}};
    results[2] = {REPRODUCIBLE, OK, 2, WORKSPACE, 1, FMA_MATH, {}};
    *found = 3;
    return OK;
}

int workspace(int algorithm, size_t* bytes) {
    *bytes = WORKSPACE;
    return algorithm == REPRODUCIBLE ? OK : NOT_SUPPORTED;
}

/// Calls f(x, w, y) with the places of each product.
template <class F> void each(const Tensor& x, const Tensor& w, const Layer& l, const Tensor& y, F f) {
    for (int n = 0; n < y.n; n++)
        for (int row = 0; row < y.h; row++)
            for (int column = 0; column < y.w; column++)
                for (int out = 0; out < y.c; out++)
                    for (int i = 0; i < w.h; i++)
                        for (int j = 0; j < w.w; j++) {
                            int h = row * l.stride + i - l.padding, v = column * l.stride + j - l.padding;
                            if (h < 0 || h >= x.h || v < 0 || v >= x.w) continue;
                            size_t from = ((size_t(n) * x.h + h) * x.w + v) * x.c, by = ((size_t(out) * w.h + i) * w.w + j) * w.c;
                            size_t to = ((size_t(n) * y.h + row) * y.w + column) * y.c + out;
                            for (int in = 0; in < x.c; in++) f(from + in, by + in, to);
                        }
}

size_t count(const Tensor& t) { return size_t(t.n) * t.c * t.h * t.w; }

enum Wanted { OF_Y, OF_X, OF_W };

int convolve(Wanted wanted, uint64_t handle, float alpha, Tensor x, uint64_t x_at, Tensor w, uint64_t w_at, Layer l, int algorithm, uint64_t space, size_t bytes, float beta, Tensor y, uint64_t y_at) {
    if (!fit(x, w, l, y) || alpha != 1 || (beta != 0 && beta != 1)) return fault(BAD_PARAMETER, "a convolution", "has sizes or factors that do not fit");
    if (algorithm != REPRODUCIBLE) return fault(NOT_SUPPORTED, "a convolution", "was asked of an algorithm that is not reproducible");
    if (bytes < WORKSPACE || !holds(space, bytes)) return fault(BAD_PARAMETER, "a convolution", "has too little workspace");
    if (!holds(x_at, 4 * count(x)) || !holds(w_at, 4 * count(w)) || !holds(y_at, 4 * count(y))) return fault(BAD_PARAMETER, "a convolution", "would go beyond a piece of memory");
    return later(reinterpret_cast<Handle*>(handle)->stream, "a convolution", {x_at, w_at, y_at, space}, [=] {
        float *a = reinterpret_cast<float*>(x_at), *b = reinterpret_cast<float*>(w_at), *c = reinterpret_cast<float*>(y_at);
        memset(reinterpret_cast<void*>(space), 0xff, bytes);
        float* to = wanted == OF_Y ? c : wanted == OF_X ? a : b;
        // As precise as can be: what differs from the processor is then not this.
        std::vector<double> sums(count(wanted == OF_Y ? y : wanted == OF_X ? x : w));
        if (beta == 1) std::copy_n(to, sums.size(), sums.begin());
        double* sum = sums.data();
        each(x, w, l, y, [=](size_t i, size_t j, size_t k) {
            if (wanted == OF_Y) sum[k] += double(a[i]) * b[j];
            else if (wanted == OF_X) sum[i] += double(b[j]) * c[k];
            else sum[j] += double(a[i]) * c[k];
        });
        std::copy(sums.begin(), sums.end(), to);
    });
}
}  // namespace

extern "C" {
int cudnnCreate(uint64_t* handle) { *handle = reinterpret_cast<uint64_t>(new Handle{0}); return OK; }
int cudnnDestroy(uint64_t handle) { delete reinterpret_cast<Handle*>(handle); return OK; }
int cudnnSetStream(uint64_t handle, uint64_t stream) { reinterpret_cast<Handle*>(handle)->stream = stream; return OK; }
int cudnnCreateTensorDescriptor(uint64_t* t) { *t = reinterpret_cast<uint64_t>(new Tensor{}); return OK; }
int cudnnDestroyTensorDescriptor(uint64_t t) { delete tensor(t); return OK; }
int cudnnSetTensor4dDescriptor(uint64_t t, int format, int kind, int n, int c, int h, int w) {
    *tensor(t) = {n, c, h, w};
    return format == NHWC && kind == FLOAT && n > 0 && c > 0 && h > 0 && w > 0 ? OK : BAD_PARAMETER;
}
int cudnnCreateFilterDescriptor(uint64_t* t) { return cudnnCreateTensorDescriptor(t); }
int cudnnDestroyFilterDescriptor(uint64_t t) { return cudnnDestroyTensorDescriptor(t); }
int cudnnSetFilter4dDescriptor(uint64_t t, int kind, int format, int k, int c, int h, int w) { return cudnnSetTensor4dDescriptor(t, format, kind, k, c, h, w); }
int cudnnCreateConvolutionDescriptor(uint64_t* l) { *l = reinterpret_cast<uint64_t>(new Layer{}); return OK; }
int cudnnDestroyConvolutionDescriptor(uint64_t l) { delete layer(l); return OK; }
int cudnnSetConvolution2dDescriptor(uint64_t l, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int compute) {
    *layer(l) = {ph, sh, 0};
    return ph == pw && sh == sw && dh == 1 && dw == 1 && mode == CROSS_CORRELATION && compute == FLOAT ? OK : NOT_SUPPORTED;
}
int cudnnSetConvolutionMathType(uint64_t l, int math) { layer(l)->math = math; return OK; }
int cudnnGetConvolutionForwardAlgorithm_v7(uint64_t, uint64_t x, uint64_t w, uint64_t l, uint64_t y, int asked, int* found, Result* r) { return algorithms(x, w, l, y, asked, found, r); }
int cudnnGetConvolutionBackwardDataAlgorithm_v7(uint64_t, uint64_t w, uint64_t y, uint64_t l, uint64_t x, int asked, int* found, Result* r) { return algorithms(x, w, l, y, asked, found, r); }
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(uint64_t, uint64_t x, uint64_t y, uint64_t l, uint64_t w, int asked, int* found, Result* r) { return algorithms(x, w, l, y, asked, found, r); }
int cudnnGetConvolutionForwardWorkspaceSize(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int algorithm, size_t* bytes) { return workspace(algorithm, bytes); }
int cudnnGetConvolutionBackwardDataWorkspaceSize(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int algorithm, size_t* bytes) { return workspace(algorithm, bytes); }
int cudnnGetConvolutionBackwardFilterWorkspaceSize(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int algorithm, size_t* bytes) { return workspace(algorithm, bytes); }
int cudnnConvolutionForward(uint64_t h, const float* alpha, uint64_t x, uint64_t x_at, uint64_t w, uint64_t w_at, uint64_t l, int a, uint64_t space, size_t bytes, const float* beta, uint64_t y, uint64_t y_at) {
    return convolve(OF_Y, h, *alpha, *tensor(x), x_at, *tensor(w), w_at, *layer(l), a, space, bytes, *beta, *tensor(y), y_at);
}
int cudnnConvolutionBackwardData(uint64_t h, const float* alpha, uint64_t w, uint64_t w_at, uint64_t y, uint64_t y_at, uint64_t l, int a, uint64_t space, size_t bytes, const float* beta, uint64_t x, uint64_t x_at) {
    return convolve(OF_X, h, *alpha, *tensor(x), x_at, *tensor(w), w_at, *layer(l), a, space, bytes, *beta, *tensor(y), y_at);
}
int cudnnConvolutionBackwardFilter(uint64_t h, const float* alpha, uint64_t x, uint64_t x_at, uint64_t y, uint64_t y_at, uint64_t l, int a, uint64_t space, size_t bytes, const float* beta, uint64_t w, uint64_t w_at) {
    return convolve(OF_W, h, *alpha, *tensor(x), x_at, *tensor(w), w_at, *layer(l), a, space, bytes, *beta, *tensor(y), y_at);
}
}
