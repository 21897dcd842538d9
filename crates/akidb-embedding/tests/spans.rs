//! The spans of a call. They are alone in this process: tracing asks only the thread that first reaches a span whether
//! anybody listens, and remembers the answer, so a test on another thread could turn them off.
#![cfg(feature = "python")]

mod common;

use akidb_embedding::{EmbeddingProvider, MlxRerankProvider, RerankOptions, RerankProvider};
use common::{RERANKER_STAND_IN, STAND_IN, made_by, request, service};

/// A subscriber that sends each span's name and fields to the test.
struct Recorder(std::sync::mpsc::Sender<String>);

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("akidb_embedding")
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut said = attributes.metadata().name().to_owned();
        attributes.record(&mut Fields(&mut said));
        self.0.send(said).unwrap();
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        let mut said = String::new();
        values.record(&mut Fields(&mut said));
        self.0.send(said).unwrap();
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

#[tokio::test]
async fn calls_have_spans() {
    let (sender, spans) = std::sync::mpsc::channel();
    let _guard = tracing::subscriber::set_default(Recorder(sender));
    let provider = service(STAND_IN);
    provider.embed_batch(request(["a", "bc"])).await.unwrap();
    provider.health_check().await.unwrap();
    provider.close(false).await.unwrap();
    let program = format!("{RERANKER_STAND_IN}\ndef make():\n    return Ranker()\n");
    let reranker = MlxRerankProvider::from_reranker(made_by(&program)).unwrap();
    reranker.rerank("q", vec!["one".to_owned()], None, RerankOptions::default()).await.unwrap();
    reranker.scores(Vec::new(), RerankOptions::default()).await.unwrap();
    reranker.health_check().await.unwrap();
    reranker.close(false).await.unwrap();
    assert_eq!(
        spans.try_iter().collect::<Vec<String>>(),
        [
            "embed model=minilm-l6-v2 texts=2",
            " tokens=3",
            "health_check model=minilm-l6-v2",
            "close drain=false model=minilm-l6-v2",
            "rerank model=stand-in pairs=1",
            " tokens=1",
            "rerank model=stand-in pairs=0",
            " tokens=0",
            "health_check model=stand-in",
            "close drain=false model=stand-in"
        ]
    );
}
