//! # onnx: networks to and from ONNX
//!
//! A file holds the network whole, from pictures of values 0 to 1 to its answer: the channel normalization and the head that counts
//! are part of the graph, so what is left to the reader is to decode a picture and to bring it to size.
//!
//! `write` puts a file together; `body`, `transformer` and `heads` say which operators stand for which layer; `graph` collects
//! them; `messages` are the part of the format that is used; `read` takes an encoder out of somebody's file. Not here: how its operators run (`model::graph`), PyTorch's names and safetensors (`model::export`).

mod body;
mod graph;
mod heads;
mod messages;
mod read;
#[cfg(test)]
mod runtime;
#[cfg(test)]
mod tests;
mod transformer;
mod write;

pub use read::encoder as read;
pub use read::{Pool, Read, Values, Wanted};
pub use write::{File, Port, classifier, encoder};
