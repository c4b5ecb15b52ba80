// Changes of layout: from images by channels [B, C, H, W] to pixels [B, H, W, C] and back, of images and of weights.

/// y [batch, columns, rows] from x [batch, rows, columns].
extern "C" __global__ void transpose(const float* x, float* y, unsigned batch, unsigned rows, unsigned columns) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= batch * rows * columns) return;
    unsigned row = i % rows, column = i / rows % columns, image = i / (rows * columns);
    y[i] = x[((size_t)image * rows + row) * columns + column];
}
