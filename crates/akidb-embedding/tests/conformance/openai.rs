//! What a server with an OpenAI-compatible API computes: the promises, and the failures of such a server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use akidb_embedding::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingError, EmbeddingProvider, EmbeddingResult,
    MlBridge, MlBridgeError, MlBridgeResult, OpenAiEmbeddingProvider, OpenAiLimits, OpenAiMlBridge, OpenAiOptions,
    Overflow,
};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::api_stand_in::{DIMENSION, KEY, Received, Reply, StandIn, embeddings, vector, well};
use crate::provider_checks::LongText;
use crate::{bridge_checks, bridge_conforms, close, length, provider_checks, provider_conforms, texts};

const MODEL: &str = "stand-in";

struct Provider(OpenAiEmbeddingProvider, StandIn);

impl Provider {
    async fn connected() -> Self {
        let server = StandIn::start(well);
        Self(OpenAiEmbeddingProvider::connect(MODEL, options(&server)).await.unwrap(), server)
    }
}

fn options(server: &StandIn) -> OpenAiOptions {
    OpenAiOptions::default().with_base_url(server.address.as_str()).with_api_key(KEY)
}

#[async_trait]
impl provider_checks::Subject for Provider {
    fn provider(&self) -> Arc<dyn EmbeddingProvider> {
        Arc::new(self.0.clone())
    }

    fn long_text(&self) -> LongText {
        LongText::Refused
    }

    async fn embed_within(
        &self,
        request: BatchEmbeddingRequest,
        limit: Duration,
    ) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.0.embed_with(request, EmbedOptions::default().with_timeout(limit)).await
    }

    async fn embed_a_bad_text(&self) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.0.embed_batch(request(["a", "forbidden", "b"])).await
    }

    async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.0.close(drain).await
    }
}

struct Bridge(OpenAiMlBridge, #[allow(dead_code, reason = "serves as long as it is held")] StandIn);

impl Bridge {
    async fn connected() -> Self {
        let Provider(provider, server) = Provider::connected().await;
        Self(OpenAiMlBridge::from(provider).with_chat_model("chat"), server)
    }
}

#[async_trait]
impl bridge_checks::Subject for Bridge {
    fn bridge(&self) -> Arc<dyn MlBridge> {
        Arc::new(self.0.clone())
    }

    async fn bridge_within(&self, limit: Duration) -> Arc<dyn MlBridge> {
        Arc::new(self.0.clone().with_timeout(limit))
    }

    fn bad_text(&self) -> String {
        "forbidden".to_owned()
    }

    async fn close(&self) -> MlBridgeResult<()> {
        self.0.close().await
    }
}

provider_conforms!(
    openai_provider,
    crate::openai::Provider::connected(),
    [
        a_bad_text_fails_alone,
        a_deadline_ends_a_call,
        after_closing_calls_are_refused,
        closing_may_finish_what_was_begun,
    ]
);
bridge_conforms!(
    openai_bridge,
    crate::openai::Bridge::connected(),
    [a_bad_text_fails_alone, a_deadline_ends_a_call, after_closing_calls_are_refused]
);

fn request(texts: impl IntoIterator<Item = impl Into<String>>) -> BatchEmbeddingRequest {
    BatchEmbeddingRequest::new(MODEL, texts)
}

/// A provider whose server answers well once, to the probe, and then by a function.
async fn after_the_probe(
    answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    change: impl FnOnce(OpenAiOptions) -> OpenAiOptions,
) -> Provider {
    let server = StandIn::start(move |request| if request.number == 0 { well(request) } else { answer(request) });
    let mut provider =
        Provider(OpenAiEmbeddingProvider::connect(MODEL, change(options(&server))).await.unwrap(), server);
    provider.1.received();
    provider
}

fn spoiled(spoil: impl Fn(&mut Value) + Send + Sync + 'static) -> impl Fn(&Received) -> Reply + Send + Sync + 'static {
    move |request| {
        let mut answer = embeddings(request);
        spoil(&mut answer);
        Reply::new(200, answer.to_string())
    }
}

#[tokio::test]
async fn an_answer_that_is_not_right_is_an_internal_error() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Option<usize>, Spoil); 13] = [
        ("has 3 values where 16", Some(1), |answer| answer["data"][1]["embedding"] = json!([1, 2, 3])),
        ("is not finite", Some(1), |answer| answer["data"][1]["embedding"] = json!(vec![1e300; DIMENSION])),
        ("has 2 values where 16", Some(2), |answer| answer["data"][2]["embedding"] = json!("AADAfwAAAAA=")),
        ("has no length", Some(0), |answer| answer["data"][0]["embedding"] = json!(vec![0.0; DIMENSION])),
        ("must be numbers or base64", Some(0), |answer| answer["data"][0]["embedding"] = json!({})),
        ("must be numbers or base64", Some(0), |answer| answer["data"][0]["embedding"] = json!([1, "x"])),
        ("cannot be read", Some(0), |answer| answer["data"][0]["embedding"] = json!("*")),
        ("2 vectors for 3 texts", None, |answer| drop(answer["data"].as_array_mut().unwrap().pop())),
        ("index 0", None, |answer| answer["data"][1]["index"] = json!(0)),
        ("index 7", None, |answer| answer["data"][1]["index"] = json!(7)),
        ("index null", None, |answer| answer["data"][1] = json!(5)),
        ("no list 'data'", None, |answer| *answer = json!({ "hello": 1 })),
        ("answered with the model \"other\"", None, |answer| answer["model"] = json!("other")),
    ];
    for (reason, index, spoil) in cases {
        let Provider(provider, _server) = after_the_probe(spoiled(spoil), |options| options).await;
        let error = provider.embed_batch(request(["a", "b", "c"])).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::Internal(_)), "{reason}: {error:?}");
        assert!(error.to_string().contains(reason), "{reason}: {error:?}");
        assert_eq!(error.index(), index, "{error:?}");
    }
}

#[tokio::test]
async fn a_vector_of_nan_is_refused_and_garbage_too() {
    let nan: Vec<u8> = std::iter::repeat_n(f32::NAN.to_le_bytes(), DIMENSION).flatten().collect();
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, nan);
    let spoil = move |answer: &mut Value| answer["data"][1]["embedding"] = json!(text);
    let Provider(provider, _server) = after_the_probe(spoiled(spoil), |options| options).await;
    let error = provider.embed_batch(request(["a", "b"])).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::Internal(_)) && error.index() == Some(1), "{error:?}");
    for garbage in [&b"<html>Log in</html>"[..], b"\xff\xfe", b"", b"{\"data\": [", b"null"] {
        let Provider(provider, _server) = after_the_probe(move |_| Reply::new(200, garbage), |options| options).await;
        let error = provider.embed_batch(request(["a"])).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::Internal(_)) && error.to_string().contains("base_url"), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_may_be_in_another_order_in_numbers_and_of_another_length() {
    let spoil = |answer: &mut Value| {
        let data = answer["data"].as_array_mut().unwrap();
        data.reverse();
        data[0]["embedding"] = json!(vector("c", DIMENSION).iter().map(|value| value * 3.0).collect::<Vec<_>>());
    };
    let Provider(provider, _server) = after_the_probe(spoiled(spoil), |options| options).await;
    let found = provider.embed_batch(request(["a", "b", "c"])).await.unwrap().embeddings;
    // Those that had length 1 are passed on to the bit.
    assert_eq!(found[0], vector("a", DIMENSION));
    assert!(close(&found[2], &vector("c", DIMENSION)) && (length(&found[2]) - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_as_the_api_asks() {
    for (status, headers, least) in [
        (429, "Retry-After: 0.2\r\n", 200),
        (503, "retry-after-ms: 150\r\n", 150),
        (500, "", 250),
        (408, "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 0),
    ] {
        let fails_once = move |request: &Received| match request.number {
            1 => Reply::new(status, "{}").with_headers(headers),
            _ => well(request),
        };
        let mut provider = after_the_probe(fails_once, |options| options).await;
        let began = Instant::now();
        assert_eq!(provider.0.embed_batch(request(["a"])).await.unwrap().embeddings.len(), 1, "{status}");
        assert!(began.elapsed() >= Duration::from_millis(least), "{status} after {:?}", began.elapsed());
        assert_eq!(provider.1.received().len(), 2);
        provider.0.health_check().await.unwrap();
    }
}

#[tokio::test]
async fn a_failure_has_the_variant_of_its_status() {
    type Variant = fn(akidb_embedding::Failure) -> EmbeddingError;
    let budget = r#"{"error": {"message": "pay", "code": "insufficient_quota"}}"#;
    let cases: [(u16, &str, Variant, usize); 10] = [
        (429, "{}", EmbeddingError::ServiceUnavailable, 2),
        (529, "{}", EmbeddingError::ServiceUnavailable, 2),
        (429, budget, EmbeddingError::ServiceUnavailable, 1),
        (502, "<html>", EmbeddingError::ServiceUnavailable, 2),
        (501, "{}", EmbeddingError::Internal, 1),
        (418, "{}", EmbeddingError::Internal, 1),
        (401, "{}", EmbeddingError::InvalidInput, 1),
        (302, "", EmbeddingError::InvalidInput, 1),
        (404, "{}", EmbeddingError::ModelNotFound, 1),
        // The second request is the harmless one, which is refused as well.
        (400, "{}", EmbeddingError::InvalidInput, 2),
    ];
    for (status, body, variant, requests) in cases {
        let headers = "Retry-After: 0.01\r\nLocation: http://127.0.0.1:9/\r\n";
        let answer = move |_: &Received| Reply::new(status, body).with_headers(headers);
        let mut provider = after_the_probe(answer, |options| options.with_max_retries(1)).await;
        let error = provider.0.embed_batch(request(["a", "b"])).await.unwrap_err();
        assert_eq!(variant(error.failure().clone()), error, "{status}");
        assert!(error.to_string().contains(&status.to_string()), "{error:?}");
        assert_eq!(provider.1.received().len(), requests, "{status}");
        assert_eq!(error.retry_after().is_some(), requests == 2 && matches!(status, 429 | 529), "{error:?}");
        let health = provider.0.health_check().await;
        assert!(matches!(health, Err(EmbeddingError::ServiceUnavailable(_))), "{health:?}");
    }
}

#[tokio::test]
async fn a_wait_past_the_deadline_or_of_more_than_a_minute_is_not_begun() {
    for (headers, limit) in [("Retry-After: 30\r\n", Some(20)), ("Retry-After: 61\r\n", None)] {
        let answer = move |_: &Received| Reply::new(429, "{}").with_headers(headers);
        let Provider(provider, _server) = after_the_probe(answer, |options| options).await;
        let mut options = EmbedOptions::default();
        options.timeout = limit.map(Duration::from_secs);
        let began = Instant::now();
        let error = provider.embed_with(request(["a"]), options).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(matches!(error, EmbeddingError::ServiceUnavailable(_)), "{error:?}");
        assert!(error.retry_after().unwrap() >= Duration::from_secs(30), "{error:?}");
    }
}

#[tokio::test]
async fn an_attempt_without_an_answer_ends_and_one_deadline_holds_for_all() {
    let slow = |request: &Received| {
        sleep(Duration::from_millis(700));
        well(request)
    };
    let change = |options: OpenAiOptions| options.with_request_timeout(Duration::from_millis(200)).with_max_retries(0);
    let Provider(provider, _server) = after_the_probe(slow, change).await;
    let error = provider.embed_batch(request(["a"])).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 200ms"), "{error:?}");

    let Provider(provider, _server) = after_the_probe(slow, |options| options).await;
    let limit = EmbedOptions::default().with_timeout(Duration::from_millis(150));
    let error = provider.embed_with(request(["a"]), limit).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(_)) && error.to_string().contains("timeout"));
    // Ended calls, and those that close() ends, leave nothing behind.
    let (call, closed) = tokio::join!(biased; provider.embed_batch(request(["a"])), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        provider.close(false).await
    });
    closed.unwrap();
    assert!(call.unwrap_err().to_string().contains("closed"));
}

#[tokio::test]
async fn requests_keep_the_limits_of_the_api() {
    let limits = OpenAiLimits::default().with_max_texts(3).with_max_request_tokens(20).with_max_text_tokens(12);
    let answer = |request: &Received| {
        sleep(Duration::from_millis(20));
        well(request)
    };
    let change = |options: OpenAiOptions| options.with_limits(limits).with_max_concurrent(2);
    let mut provider = after_the_probe(answer, change).await;
    let texts: Vec<String> = (0..20).map(|index| "x".repeat(index % 9 * 4)).collect();
    let found = provider.0.embed_batch(request(texts.clone())).await.unwrap().embeddings;
    assert!(found.iter().zip(&texts).all(|(found, text)| close(found, &vector(text, DIMENSION))));
    for sent in provider.1.received() {
        let inputs = sent.inputs();
        assert!(inputs.len() <= 3 && inputs.iter().map(|text| text.len() / 4 + 1).sum::<usize>() <= 20, "{inputs:?}");
        assert_eq!(sent.body["encoding_format"], "base64");
    }
    assert!((1..=2).contains(&provider.1.most_at_once.load(Ordering::Acquire)));
    let error = provider.0.embed_batch(request(["a", &"x".repeat(100)])).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::InvalidInput(_)) && error.index() == Some(1), "{error:?}");
    assert!(provider.1.received().is_empty(), "a text that is too long was sent");
}

#[tokio::test]
async fn the_text_at_fault_is_found_among_many() {
    let mut provider = after_the_probe(well, |options| options).await;
    let mut texts = texts(50);
    texts[37] = "forbidden".to_owned();
    let error = provider.0.embed_batch(request(texts)).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::InvalidInput(_)) && error.index() == Some(37), "{error:?}");
    assert!(provider.1.received().len() < 20);
}

#[tokio::test]
async fn dimensions_are_asked_for_and_checked() {
    let server = StandIn::start(well);
    let provider = OpenAiEmbeddingProvider::connect(MODEL, options(&server).with_dimensions(8)).await.unwrap();
    assert_eq!(provider.model_info().await.unwrap().dimension, 8);
    assert_eq!(provider.embed_batch(request(["a"])).await.unwrap().embeddings[0], vector("a", 8));
    let native = EmbedOptions::default().with_dimensions(DIMENSION as u32);
    assert_eq!(provider.embed_with(request(["a"]), native).await.unwrap().embeddings[0].len(), DIMENSION);

    let ignores = |request: &Received| {
        let mut request = request.clone();
        request.body["dimensions"].take();
        well(&request)
    };
    let server = StandIn::start(ignores);
    let error = OpenAiEmbeddingProvider::connect(MODEL, options(&server).with_dimensions(8)).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::Internal(_)) && error.to_string().contains("dimensions"), "{error:?}");
}

#[tokio::test]
async fn prompts_are_put_before_texts_and_other_options_are_refused() {
    let Provider(provider, _server) = after_the_probe(well, |options| options.with_prompt("query", "Q: ")).await;
    let query = EmbedOptions::default().with_input_type("query");
    let found = provider.embed_with(request(["a"]), query).await.unwrap().embeddings;
    assert_eq!(found[0], vector("Q: a", DIMENSION));
    let mut raw = request(["a"]);
    raw.normalize = false;
    for (request, options, word) in [
        (request(["a"]), EmbedOptions::default().with_input_type("song"), "query"),
        (request(["a"]), EmbedOptions::default().with_on_overflow(Overflow::Chunk), "on_overflow"),
        (request(["a"]), EmbedOptions::default().with_dimensions(0), "dimensions"),
        (raw, EmbedOptions::default(), "normalize"),
    ] {
        let error = provider.embed_with(request, options).await.unwrap_err();
        assert!(matches!(&error, EmbeddingError::InvalidInput(_)) && error.to_string().contains(word), "{error:?}");
    }
}

#[tokio::test]
async fn the_key_is_sent_and_nowhere_shown() {
    let tells = |request: &Received| {
        let message = format!("the key {KEY} is wrong, see Authorization: Bearer {KEY}, or sk-sec***89");
        if request.number == 0 {
            well(request)
        } else {
            Reply::new(401, json!({ "error": { "message": message } }).to_string())
        }
    };
    let server = StandIn::start(tells);
    let given = options(&server);
    let mut provider = Provider(OpenAiEmbeddingProvider::connect(MODEL, given.clone()).await.unwrap(), server);
    let error = provider.0.embed_batch(request(["a"])).await.unwrap_err();
    assert!(provider.1.received()[0].headers.contains(&format!("authorization: bearer {KEY}")));
    let shown = format!("{error:?} {error} {given:?} {:?} {:?}", provider.0, provider.0.health_check().await);
    assert!(shown.contains("refuses the key") && !shown.contains("sk-"), "{shown}");
}

#[tokio::test]
async fn addresses_and_keys_that_are_not_usable_are_refused_without_being_shown() {
    for (address, key) in [
        ("not a url", "k"),
        ("ftp://host", "k"),
        ("http://user:sk-secret@host/v1", "k"),
        ("http://host/v1?key=sk-secret", "k"),
        ("http://host/v1", "sk-secret with spaces"),
    ] {
        let options = OpenAiOptions::default().with_base_url(address).with_api_key(key);
        let error = OpenAiEmbeddingProvider::connect(MODEL, options).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{address}: {error:?}");
        assert!(!error.to_string().contains("sk-secret"), "{error:?}");
    }
    let nobody = OpenAiOptions::default().with_base_url("http://127.0.0.1:9/v1").with_max_retries(0);
    let error = OpenAiEmbeddingProvider::connect(MODEL, nobody).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(_)) && error.to_string().contains("127.0.0.1:9"));
}

#[tokio::test]
async fn summaries_are_the_chat_models() {
    let mut provider = after_the_probe(well, |options| options).await;
    let bridge = OpenAiMlBridge::from(provider.0.clone());
    let messages = ["one".to_owned(), "two".to_owned()];
    let error = bridge.summarize(&messages).await.unwrap_err();
    assert!(matches!(error, MlBridgeError::Unsupported(_)), "{error:?}");
    let bridge = bridge.with_chat_model("chat");
    assert_eq!(bridge.summarize(&[]).await.unwrap(), "");
    assert_eq!(bridge.summarize(&[" \n".to_owned()]).await.unwrap(), "");
    assert!(provider.1.received().is_empty());
    assert_eq!(bridge.summarize(&messages).await.unwrap(), "A summary.");
    let [sent] = &provider.1.received()[..] else { panic!("one request") };
    assert_eq!((sent.path.as_str(), &sent.body["model"]), ("/v1/chat/completions", &json!("chat")));
    assert_eq!(sent.body["messages"][1]["content"], "one\n\ntwo");
    let Provider(provider, _server) = after_the_probe(|_| Reply::new(200, "{}"), |options| options).await;
    let bridge = OpenAiMlBridge::from(provider).with_chat_model("chat");
    assert!(matches!(bridge.summarize(&messages).await, Err(MlBridgeError::FunctionCall(_))));
}

#[tokio::test]
async fn a_date_of_retry_after_is_waited_for() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    let headers: &'static str = Box::leak(format!("Retry-After: {date}\r\n").into_boxed_str());
    let answer = move |_: &Received| Reply::new(503, "{}").with_headers(headers);
    let mut provider = after_the_probe(answer, |options| options).await;
    // An hour is more than is waited for, so that the first attempt is the last.
    provider.0.embed_batch(request(["a"])).await.unwrap_err();
    assert_eq!(provider.1.received().len(), 1);
}
