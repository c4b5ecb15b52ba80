// A stand-in for libcuda.so.1 that computes on the processor: kernels are the project's own sources, compiled for it.
//
// It is stricter than a card. Memory is poisoned with NaN when it is handed out; an address of no memory in use, or of memory that was
// given back, is refused; work is put off until somebody waits for its stream, and one stream may not use what another has not finished.
// Whatever it refuses it also says on standard error.
#include "driver.h"
#include "shim.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#ifndef DOUBLE_CARDS
#define DOUBLE_CARDS 1
#endif
#ifndef DOUBLE_CAPABILITY
#define DOUBLE_CAPABILITY 80
#endif
#ifndef DOUBLE_MEMORY
#define DOUBLE_MEMORY (1ull << 30)
#endif
#ifndef DOUBLE_WRONG_MEAN
#define DOUBLE_WRONG_MEAN 0
#endif

Dim threadIdx, blockIdx, blockDim, gridDim;

namespace {
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, BAD_DEVICE = 101, NO_CONTEXT = 201, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, FAILED = 719 };
std::recursive_mutex& door = *new std::recursive_mutex;
struct Block {
    size_t bytes;
    /// The stream whose work on it nobody has waited for, or 0.
    uint64_t busy;
};
auto& blocks = *new std::map<uint64_t, Block>;
auto& streams = *new std::map<uint64_t, std::vector<std::function<void()>>>;
auto& images = *new std::map<uint64_t, std::string>;
auto& functions = *new std::map<uint64_t, std::string>;
uint64_t next_handle = 0x1000;
size_t used = 0;
thread_local uint64_t current = 0;
const uint64_t CONTEXT = 0xC0;

std::map<uint64_t, Block>::iterator of(uint64_t address) {
    auto above = blocks.upper_bound(address);
    if (above == blocks.begin()) return blocks.end();
    auto block = std::prev(above);
    return address < block->first + block->second.bytes ? block : blocks.end();
}

/// Filled before other statics of this file may be there.
std::map<std::string, Binder>& kernels() {
    static auto& all = *new std::map<std::string, Binder>;
    return all;
}

int finish(uint64_t stream) {
    auto found = streams.find(stream);
    if (found == streams.end()) return fault(INVALID, "a stream", "is none");
    auto work = std::move(found->second);
    found->second.clear();
    for (auto& step : work) step();
    for (auto& [address, block] : blocks)
        if (block.busy == stream) block.busy = 0;
    return OK;
}
}  // namespace

void know(const char* name, Binder binder) { kernels()[name] = binder; }

int fault(int code, const char* what, const char* why) {
    fprintf(stderr, "test double of libcuda: %s %s\n", what, why);
    return code;
}

bool holds(uint64_t address, size_t bytes) {
    auto block = of(address);
    return block != blocks.end() && address + bytes <= block->first + block->second.bytes;
}

int later(uint64_t stream, const char* what, std::initializer_list<uint64_t> addresses, std::function<void()> work) {
    std::lock_guard<std::recursive_mutex> inside(door);
    if (current != CONTEXT) return fault(NO_CONTEXT, what, "was asked by a thread without a context");
    auto queue = streams.find(stream);
    if (queue == streams.end()) return fault(INVALID, what, "was asked of a stream that is none");
    for (uint64_t address : addresses) {
        if (!address) continue;
        auto block = of(address);
        if (block == blocks.end()) return fault(ILLEGAL_ADDRESS, what, "got an address of no memory in use");
        if (block->second.busy && block->second.busy != stream)
            return fault(FAILED, what, "uses memory that another stream has not finished with");
    }
    for (uint64_t address : addresses)
        if (address) of(address)->second.busy = stream;
    queue->second.push_back(std::move(work));
    return OK;
}

#define INSIDE std::lock_guard<std::recursive_mutex> inside(door)
#define BOUND INSIDE; if (current != CONTEXT) return fault(NO_CONTEXT, __func__, "was called without a context")

extern "C" {
int cuInit(unsigned) { return DOUBLE_CARDS ? OK : NO_DEVICE; }
int cuDriverGetVersion(int* version) { *version = 12020; return OK; }
int cuDeviceGetCount(int* count) { *count = DOUBLE_CARDS; return OK; }
int cuDeviceGet(int* device, int index) { *device = index; return index < DOUBLE_CARDS ? OK : BAD_DEVICE; }
int cuDeviceGetName(char* name, int length, int) { snprintf(name, length, "test double"); return OK; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    if (attribute != 75 && attribute != 76) return INVALID;
    *value = attribute == 75 ? DOUBLE_CAPABILITY / 10 : DOUBLE_CAPABILITY % 10;
    return OK;
}
int cuDevicePrimaryCtxRetain(uint64_t* context, int) { *context = CONTEXT; return OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(uint64_t context) { current = context; return OK; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { BOUND; *total = DOUBLE_MEMORY; *free = DOUBLE_MEMORY - used; return OK; }
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    BOUND;
    if (!bytes) return INVALID;
    if (used + bytes > DOUBLE_MEMORY) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(memory, 0xff, bytes);
    *address = reinterpret_cast<uint64_t>(memory);
    blocks[*address] = {bytes, 0};
    used += bytes;
    return OK;
}
int cuMemFree_v2(uint64_t address) {
    BOUND;
    auto block = blocks.find(address);
    if (block == blocks.end()) return fault(INVALID, __func__, "got what was given back, or never handed out");
    if (block->second.busy) return fault(FAILED, __func__, "got memory that a stream has not finished with");
    used -= block->second.bytes;
    blocks.erase(block);
    free(reinterpret_cast<void*>(address));
    return OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, uint64_t stream) {
    BOUND;
    if (!holds(to, bytes)) return fault(INVALID, __func__, "would write beyond a piece of memory");
    // Pageable memory is read before the call returns.
    std::vector<char> taken(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return later(stream, __func__, {to}, [to, taken = std::move(taken)] { memcpy(reinterpret_cast<void*>(to), taken.data(), taken.size()); });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, uint64_t stream) {
    BOUND;
    if (!holds(from, bytes)) return fault(INVALID, __func__, "would read beyond a piece of memory");
    memset(to, 0xff, bytes);
    return later(stream, __func__, {from}, [=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
}
int cuStreamCreate(uint64_t* stream, unsigned) { BOUND; streams[*stream = next_handle++]; return OK; }
int cuStreamDestroy_v2(uint64_t stream) { BOUND; finish(stream); streams.erase(stream); return OK; }
int cuStreamSynchronize(uint64_t stream) { BOUND; return finish(stream); }
int cuModuleLoadData(uint64_t* module, const char* text) { BOUND; images[*module = next_handle++] = text; return OK; }
int cuModuleUnload(uint64_t module) { BOUND; return images.erase(module) ? OK : INVALID; }
int cuModuleGetFunction(uint64_t* function, uint64_t module, const char* name) {
    BOUND;
    auto image = images.find(module);
    if (image == images.end() || image->second.find(std::string(".entry ") + name + "(") == std::string::npos || !kernels().count(name)) return NOT_FOUND;
    functions[*function = next_handle++] = name;
    return OK;
}
int cuLaunchKernel(uint64_t function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, uint64_t stream, void** places, void**) {
    BOUND;
    auto name = functions.find(function);
    if (name == functions.end()) return INVALID;
    if (!gx || gy != 1 || gz != 1 || !bx || bx > 1024 || by != 1 || bz != 1 || shared) return fault(INVALID, name->second.c_str(), "was started in a shape that this double does not know");
    Bound bound = kernels()[name->second](places);
    float* wrong = DOUBLE_WRONG_MEAN && name->second == "mean" ? *static_cast<float**>(places[1]) : nullptr;
    auto work = [=, thread = bound.thread] {
        gridDim = {gx, 1, 1};
        blockDim = {bx, 1, 1};
        for (unsigned block = 0; block < gx; block++)
            for (unsigned lane = 0; lane < bx; lane++) {
                blockIdx = {block, 0, 0};
                threadIdx = {lane, 0, 0};
                thread();
            }
        // To see that a kernel that is off by a little is noticed.
        if (wrong) *wrong *= 1.001f;
    };
    // All addresses are looked at, then the work is put off.
    for (uint64_t address : bound.addresses)
        if (int code = later(stream, name->second.c_str(), {address}, [] {})) return code;
    return later(stream, name->second.c_str(), {}, work);
}
int cuGetErrorString(int code, const char** text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : code == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : code == FAILED ? "unspecified launch failure" : code == NOT_FOUND ? "named symbol not found" : nullptr;
    return *text ? OK : INVALID;
}
}
