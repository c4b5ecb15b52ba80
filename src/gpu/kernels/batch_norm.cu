// Batch norm with ReLU and the sum of a residual block, on maps [rows, channels]: a row is a pixel of an image (NHWC).
//
// A thread works alone: no shared memory, no atomics, so that sums have one order and equal inputs give equal bytes. Sums over rows
// are cut into slices, a thread per slice and channel; neighboring threads read neighboring channels. They are kept in f64.
// NaN passes everywhere: a comparison with it is false.

/// part [slices, 2, channels]: sums of x - c and (x - c)^2, where c is the channel's first value, so that a large mean costs no digits.
extern "C" __global__ void moments(const float* x, double* part, unsigned rows, unsigned channels, unsigned slices) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= slices * channels) return;
    unsigned channel = i % channels, slice = i / channels;
    unsigned from = (unsigned)((unsigned long long)rows * slice / slices);
    unsigned to = (unsigned)((unsigned long long)rows * (slice + 1) / slices);
    float center = x[channel];
    double sum = 0, square = 0;
    for (unsigned row = from; row < to; row++) {
        double v = x[(size_t)row * channels + channel] - center;
        sum += v;
        square += v * v;
    }
    part[(size_t)slice * 2 * channels + channel] = sum;
    part[((size_t)slice * 2 + 1) * channels + channel] = square;
}

/// The slices' sums added in order. moments [2, channels]: mean and biased variance. saved [2, channels]: mean and 1 / sqrt(variance +
/// epsilon). line [2, channels]: scale and shift.
extern "C" __global__ void statistics(const double* part, const float* x, const float* gamma, const float* beta, float* moments,
                                      double* saved, float* line, unsigned rows, unsigned channels, unsigned slices,
                                      float epsilon) {
    unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0, square = 0;
    for (unsigned slice = 0; slice < slices; slice++) {
        sum += part[(size_t)slice * 2 * channels + channel];
        square += part[((size_t)slice * 2 + 1) * channels + channel];
    }
    double shifted = sum / rows, mean = x[channel] + shifted, variance = square / rows - shifted * shifted;
    if (variance < 0) variance = 0;
    double inverse = 1 / sqrt(variance + epsilon), scale = gamma[channel] * inverse;
    moments[channel] = (float)mean;
    moments[channels + channel] = (float)variance;
    saved[channel] = mean;
    saved[channels + channel] = inverse;
    line[channel] = (float)scale;
    line[channels + channel] = (float)(beta[channel] - mean * scale);
}

/// saved and line as of `statistics`, from moments that are given.
extern "C" __global__ void fixed_statistics(const float* gamma, const float* beta, const float* moments, double* saved, float* line,
                                            unsigned channels, float epsilon) {
    unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double mean = moments[channel], inverse = 1 / sqrt((double)moments[channels + channel] + epsilon);
    double scale = gamma[channel] * inverse;
    saved[channel] = mean;
    saved[channels + channel] = inverse;
    line[channel] = (float)scale;
    line[channels + channel] = (float)(beta[channel] - mean * scale);
}

/// y = x * scale + shift, plus the residual if there is one, rectified if asked.
extern "C" __global__ void normalize(const float* x, const float* residual, float* y, const float* line, unsigned count,
                                     unsigned channels, unsigned rectify) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned channel = i % channels;
    float v = x[i] * line[channel] + line[channels + channel];
    if (residual) v += residual[i];
    y[i] = rectify && v < 0 ? 0 : v;
}

/// part [slices, 2, channels]: sums of g and g * (x - c), where c is the mean. Where an output `y` is given, only the g count whose
/// output is positive.
extern "C" __global__ void gradient_moments(const float* g, const float* y, const float* x, const double* saved, double* part,
                                            unsigned rows, unsigned channels, unsigned slices) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= slices * channels) return;
    unsigned channel = i % channels, slice = i / channels;
    unsigned from = (unsigned)((unsigned long long)rows * slice / slices);
    unsigned to = (unsigned)((unsigned long long)rows * (slice + 1) / slices);
    float center = (float)saved[channel];
    double sum = 0, product = 0;
    for (unsigned row = from; row < to; row++) {
        size_t at = (size_t)row * channels + channel;
        float v = !y || y[at] > 0 ? g[at] : 0;
        sum += v;
        product += v * (x[at] - center);
    }
    part[(size_t)slice * 2 * channels + channel] = sum;
    part[((size_t)slice * 2 + 1) * channels + channel] = product;
}

/// The slices' sums added in order: the gradients of gamma and beta, and a, b, d, c of `input_gradient`, as coefficients [4, channels].
/// With fixed statistics the gradient does not go through mean and variance.
extern "C" __global__ void gradient_coefficients(const double* part, const double* saved, const float* gamma, float* of_gamma,
                                                 float* of_beta, float* coefficients, unsigned rows, unsigned channels,
                                                 unsigned slices, unsigned fixed) {
    unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0, product = 0;
    for (unsigned slice = 0; slice < slices; slice++) {
        sum += part[(size_t)slice * 2 * channels + channel];
        product += part[((size_t)slice * 2 + 1) * channels + channel];
    }
    double mean = saved[channel], inverse = saved[channels + channel];
    float center = (float)mean;
    // The center is the mean rounded.
    product += sum * (center - mean);
    double a = gamma[channel] * inverse;
    double b = fixed ? 0 : -a * inverse * inverse * product / rows;
    double d = fixed ? 0 : -a * sum / rows + b * (center - mean);
    of_gamma[channel] = (float)(product * inverse);
    of_beta[channel] = (float)sum;
    coefficients[channel] = (float)a;
    coefficients[channels + channel] = (float)b;
    coefficients[2 * channels + channel] = (float)d;
    coefficients[3 * channels + channel] = center;
}

/// of_x = a * g + b * (x - c) + d, with g zero where `y` is given and not positive; where `passed` is given, such g goes there: it is the
/// gradient of the residual. `of_x` or `passed` may be `g`.
extern "C" __global__ void input_gradient(const float* g, const float* y, const float* x, const float* coefficients, float* of_x,
                                          float* passed, unsigned count, unsigned channels) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned channel = i % channels;
    float v = !y || y[i] > 0 ? g[i] : 0;
    float a = coefficients[channel], b = coefficients[channels + channel], d = coefficients[2 * channels + channel];
    if (passed) passed[i] = v;
    of_x[i] = a * v + (b * (x[i] - coefficients[3 * channels + channel]) + d);
}
