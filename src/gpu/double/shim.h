// What a kernel in CUDA C++ finds around it, so that a C++ compiler for processors takes the source as it is.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#define __global__
struct Dim {
    unsigned x, y, z;
};
extern Dim threadIdx, blockIdx, blockDim, gridDim;

/// Arguments taken out of a launch: the addresses among them, and the work of one thread.
struct Bound {
    std::vector<uint64_t> addresses;
    std::function<void()> thread;
};
using Binder = std::function<Bound(void**)>;
void know(const char* name, Binder binder);

template <class... A, size_t... I> Bound taken_apart(void (*kernel)(A...), void** places, std::index_sequence<I...>) {
    std::tuple<A...> arguments{*static_cast<A*>(places[I])...};
    Bound bound;
    auto note = [&](auto value) {
        if constexpr (std::is_pointer_v<decltype(value)>) bound.addresses.push_back(reinterpret_cast<uint64_t>(value));
    };
    (note(std::get<I>(arguments)), ...);
    bound.thread = [kernel, arguments] { std::apply(kernel, arguments); };
    return bound;
}

template <class... A> bool kernel(const char* name, void (*function)(A...)) {
    know(name, [function](void** places) { return taken_apart(function, places, std::index_sequence_for<A...>{}); });
    return true;
}
