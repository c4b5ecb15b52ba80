// Pooling of maps [B, H, W, C]. A thread works alone, and gradients are gathered, not scattered: sums have one order.

/// The largest value of each window, and where it was in the map. The first of equal ones wins, padding never, NaN always.
extern "C" __global__ void max_pool(const float* x, float* y, unsigned* winners, unsigned count, unsigned height, unsigned width,
                                    unsigned channels, unsigned out_height, unsigned out_width, unsigned kernel, unsigned stride,
                                    unsigned padding) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned channel = i % channels, column = i / channels % out_width, row = i / channels / out_width % out_height;
    unsigned image = i / channels / out_width / out_height;
    unsigned top = row * stride > padding ? row * stride - padding : 0, bottom = row * stride + kernel - padding;
    unsigned left = column * stride > padding ? column * stride - padding : 0, right = column * stride + kernel - padding;
    if (bottom > height) bottom = height;
    if (right > width) right = width;
    unsigned winner = top * width + left;
    const float* map = x + (size_t)image * height * width * channels + channel;
    float best = map[(size_t)winner * channels];
    for (unsigned h = top; h < bottom; h++)
        for (unsigned w = left; w < right; w++) {
            float v = map[(size_t)(h * width + w) * channels];
            if (v > best || v != v) {
                best = v;
                winner = h * width + w;
            }
        }
    y[i] = best;
    winners[i] = winner;
}

/// The gradient of each pixel: the sum of those of the windows that it won.
extern "C" __global__ void max_pool_gradient(const float* g, const unsigned* winners, float* of_x, unsigned count, unsigned height,
                                             unsigned width, unsigned channels, unsigned out_height, unsigned out_width,
                                             unsigned kernel, unsigned stride, unsigned padding) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned channel = i % channels, w = i / channels % width, h = i / channels / width % height;
    unsigned image = i / channels / width / height;
    unsigned top = h + padding >= kernel ? (h + padding - kernel) / stride + 1 : 0, bottom = (h + padding) / stride;
    unsigned left = w + padding >= kernel ? (w + padding - kernel) / stride + 1 : 0, right = (w + padding) / stride;
    float sum = 0;
    for (unsigned row = top; row <= bottom && row < out_height; row++)
        for (unsigned column = left; column <= right && column < out_width; column++) {
            size_t at = (((size_t)image * out_height + row) * out_width + column) * channels + channel;
            if (winners[at] == h * width + w) sum += g[at];
        }
    of_x[i] = sum;
}

/// y [batch, channels]: the mean over all pixels of x [batch, map, channels].
extern "C" __global__ void mean(const float* x, float* y, unsigned count, unsigned map, unsigned channels) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float* first = x + (size_t)(i / channels) * map * channels + i % channels;
    double sum = 0;
    for (unsigned pixel = 0; pixel < map; pixel++) sum += first[(size_t)pixel * channels];
    y[i] = (float)(sum / map);
}

/// Its gradient: every pixel gets its share.
extern "C" __global__ void mean_gradient(const float* g, float* of_x, unsigned count, unsigned map, unsigned channels) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    of_x[i] = g[i / channels / map * channels + i % channels] / map;
}
