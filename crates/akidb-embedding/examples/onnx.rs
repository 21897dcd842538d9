//! The start of an exported model without Python, and its memory:
//! `cargo run --release --no-default-features --features onnx --example onnx -- MODEL [TEXT …]`.

use std::time::Instant;
use std::{env, fs};

use akidb_embedding::{
    BatchEmbeddingRequest, EmbeddingError, EmbeddingProvider, EmbeddingResult, OnnxEmbeddingProvider, OnnxOptions,
};

#[tokio::main]
async fn main() -> EmbeddingResult<()> {
    let began = Instant::now();
    let mut arguments = env::args().skip(1);
    let model = arguments.next().ok_or(EmbeddingError::InvalidInput("give a model and texts".into()))?;
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts.push("Hello, world!".to_owned());
    }

    let provider = OnnxEmbeddingProvider::load(&model, OnnxOptions::default()).await?;
    let response = provider.embed_batch(BatchEmbeddingRequest::new(model, texts)).await?;
    let ready = began.elapsed();

    println!("{} values, {} tokens", response.embeddings[0].len(), response.usage.total_tokens);
    println!("{ready:.0?} from the start to the first vector");
    // Linux only: pages of 4 KiB.
    let resident = fs::read_to_string("/proc/self/statm").ok();
    if let Some(pages) = resident.as_deref().and_then(|numbers| numbers.split(' ').nth(1)?.parse::<f64>().ok()) {
        println!("{:.0} MB resident", pages * 4096.0 / 1e6);
    }
    provider.close(true).await
}
