//! Vectors equal to Python's to the bit. One test: calls that run at once share batches, and so the order of additions.
#![cfg(feature = "python")]

mod common;

use std::process::Command;

use akidb_embedding::{EmbedOptions, EmbeddingProvider, Overflow};
use common::{minilm, repository, request, sentences};

/// What Python computes of the lines of a file in a process of its own: the tokens, then the vectors as bytes.
fn python(texts: &[String], call: &str) -> (usize, Vec<u8>) {
    let code = format!(
        "import sys\nfrom akidb_mlx import EmbeddingService\ntexts = sys.argv[1:]\n\
         with EmbeddingService('minilm-l6-v2', device='cpu') as service:\n    batch = service.embed_detailed(texts{call})\n\
         sys.stdout.buffer.write(b'%d\\n' % sum(batch.token_counts) + batch.vectors.tobytes())"
    );
    let python = std::env::var("AKIDB_PYTHON").unwrap();
    let interpreter = if std::path::Path::new(&python).is_dir() { format!("{python}/bin/python") } else { python };
    let output = Command::new(interpreter).arg("-c").arg(code).args(texts).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = output.stdout.iter().position(|byte| *byte == b'\n').unwrap();
    (String::from_utf8_lossy(&output.stdout[..line]).parse().unwrap(), output.stdout[line + 1..].to_vec())
}

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_ne_bytes).collect()
}

#[tokio::test]
async fn vectors_equal_pythons_to_the_bit() {
    plain_calls().await;
    calls_with_options().await;
}

async fn plain_calls() {
    let mut texts = sentences(100);
    texts.extend(["".to_owned(), "\0 ünïcode \u{1f980}".to_owned(), "word ".repeat(600)]);
    let provider = minilm();
    let (tokens, expected) = python(&texts[..101], "");
    let nested = provider.embed_batch(request(&texts[..101])).await.unwrap();
    assert_eq!(nested.usage.total_tokens, tokens);
    assert_eq!(bytes(nested.embeddings.concat()), expected);

    // Arguments cannot hold a NUL, so the rest is compared with the same call in one piece.
    let flat = provider.embed_flat(request(&texts), EmbedOptions::default()).await.unwrap();
    let nested = provider.embed_batch(request(&texts)).await.unwrap();
    assert_eq!((flat.dimension, flat.rows().len()), (384, 103));
    assert!(flat.rows().zip(&nested.embeddings).all(|(row, vector)| row == vector));
    assert_eq!(flat.truncated, [vec![false; 102], vec![true]].concat());
    assert_eq!(flat.token_counts[102], 256);
    assert_eq!(flat.usage.total_tokens, nested.usage.total_tokens);
}

async fn calls_with_options() {
    let texts = ["word ".repeat(600)];
    let options = EmbedOptions::default().with_on_overflow(Overflow::Chunk).with_prompt("title: ");
    let (tokens, expected) = python(&texts, ", on_overflow='chunk', prompt='title: ', normalize=False");
    let mut raw = request(&texts);
    raw.normalize = false;
    let response = minilm().embed_with(raw, options).await.unwrap();
    assert_eq!(response.usage.total_tokens, tokens);
    assert_eq!(bytes(response.embeddings.concat()), expected);
}
