// What the stand-ins for libcuda and cuDNN share: memory, streams, faults.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>

/// Puts work that uses these addresses at the end of a stream. It is done when somebody waits for the stream, and not before: whoever
/// reads too early reads what was there. Returns a code as of libcuda.
int later(uint64_t stream, const char* what, std::initializer_list<uint64_t> addresses, std::function<void()> work);
/// The same number of bytes from an address on: whether all of them are of one piece of memory that is in use.
bool holds(uint64_t address, size_t bytes);
/// Says that something was done that a card would not have forgiven.
int fault(int code, const char* what, const char* why);
