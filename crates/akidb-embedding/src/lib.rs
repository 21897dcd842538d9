#![cfg_attr(all(feature = "python", feature = "onnx", feature = "openai"), doc = include_str!("../README.md"))]
#![cfg_attr(
    not(all(feature = "python", feature = "onnx", feature = "openai")),
    doc = "Text embeddings for AkiDB: traits, and an implementation for each of the features `python`, `onnx` and `openai`."
)]
#![deny(missing_docs, unsafe_code)]

mod error;
mod failures;
#[cfg(any(feature = "onnx", feature = "openai"))]
mod gate;
mod ml_bridge;
mod mock;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "openai")]
mod openai;
mod provider;
#[cfg(feature = "python")]
mod python;
mod rerank;
mod types;

pub use error::{EmbeddingError, EmbeddingResult, Failure, MlBridgeError, MlBridgeResult, PythonError};
pub use ml_bridge::{Entity, MlBridge};
pub use mock::{MockEmbeddingProvider, MockMlBridge, MockRerankProvider};
#[cfg(feature = "onnx")]
pub use onnx::{OnnxEmbeddingProvider, OnnxMlBridge, OnnxOptions};
#[cfg(feature = "openai")]
pub use openai::{OpenAiEmbeddingProvider, OpenAiLimits, OpenAiMlBridge, OpenAiOptions};
pub use provider::EmbeddingProvider;
#[cfg(feature = "python")]
pub use python::{MlxEmbeddingProvider, MlxRerankProvider, PyMlBridge, PythonEnvironment, ServiceOptions};
pub use rerank::RerankProvider;
pub use types::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, FlatEmbeddings, ModelInfo, Overflow, PairScores,
    RerankOptions, RerankerInfo, Usage,
};
