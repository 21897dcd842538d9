#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_code)]

mod distance;
mod error;
pub mod ffi;
mod fields;
mod json;
mod kind;
mod kmeans;
mod knn;
mod labels;
mod mlp;
mod screen;
mod selector;
mod svm;

pub use error::Error;
pub use selector::{MAX_BYTES, Selector};
