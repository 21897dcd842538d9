//! A small similarity search with all-MiniLM-L6-v2: `cargo run --example search [-- QUERY]`.

use std::error::Error;

use akidb_embedding::{BatchEmbeddingRequest, EmbeddingProvider, MlxEmbeddingProvider, ServiceOptions};

const MODEL: &str = "minilm-l6-v2";

const DOCUMENTS: [&str; 5] = [
    "The cat sleeps on the warm windowsill.",
    "A vector database finds the nearest neighbours of a query.",
    "The train to Vienna leaves at half past seven.",
    "Rust checks at compile time who owns a value.",
    "Simmer the tomatoes for an hour and add the basil last.",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let query = std::env::args().nth(1).unwrap_or("When does my train depart?".to_owned());
    let provider = MlxEmbeddingProvider::load(MODEL, ServiceOptions::default()).await?;
    let texts = DOCUMENTS.into_iter().chain([query.as_str()]);
    let answer = provider.embed_batch(BatchEmbeddingRequest::new(MODEL, texts)).await?;
    let (asked, documents) = answer.embeddings.split_last().ok_or("no vectors")?;
    let similarity = |vector: &Vec<f32>| vector.iter().zip(asked).map(|(a, b)| a * b).sum::<f32>();
    let mut ranked: Vec<(f32, &str)> = documents.iter().map(similarity).zip(DOCUMENTS).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("{query}  ({} tokens, {} ms)", answer.usage.total_tokens, answer.usage.duration_ms);
    for (score, document) in ranked {
        println!("{score:6.3}  {document}");
    }
    provider.close(true).await?;
    Ok(())
}
