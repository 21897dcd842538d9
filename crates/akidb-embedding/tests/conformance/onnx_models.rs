//! Exported models: their vectors beside Python's, files that are refused, names in the cache, and the queue.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use akidb_embedding::{
    BatchEmbeddingRequest, EmbedOptions, EmbeddingError, EmbeddingProvider, MlBridge, MlBridgeError,
    OnnxEmbeddingProvider, OnnxMlBridge, OnnxOptions, Overflow,
};
use serde_json::{Value, json};

use crate::close;
use crate::exported::{export, folder, open, path};

/// Compare what Python computed with the same calls here, and return how many there were.
async fn compare(folder: &Path) -> usize {
    let calls: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("calls.json")).unwrap()).unwrap();
    let mut held: Option<(String, OnnxEmbeddingProvider)> = None;
    let mut largest = 0.0_f32;
    for call in &calls {
        let model = folder.join(call["model"].as_str().unwrap()).to_str().unwrap().to_owned();
        if held.as_ref().is_none_or(|(name, _)| *name != model) {
            held = Some((model.clone(), OnnxEmbeddingProvider::load(&model, OnnxOptions::default()).await.unwrap()));
        }
        let texts: Vec<String> = serde_json::from_value(call["texts"].clone()).unwrap();
        let mut request = BatchEmbeddingRequest::new(model, texts);
        request.normalize = call["options"]["normalize"] != json!(false);
        let flat = held.as_ref().unwrap().1.embed_flat(request, options(&call["options"])).await.unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(call["vectors"].clone()).unwrap();
        assert_eq!(flat.rows().len(), expected.len());
        assert_eq!(json!(flat.token_counts), call["token_counts"], "{} {}", call["model"], call["options"]);
        assert_eq!(json!(flat.truncated), call["truncated"]);
        for (index, (row, expected)) in flat.rows().zip(&expected).enumerate() {
            assert!(close(row, expected), "{} {} text {index}", call["model"], call["options"]);
            largest = row.iter().zip(expected).fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
        }
    }
    println!("largest difference of a value: {largest:e}");
    calls.len()
}

fn options(given: &Value) -> EmbedOptions {
    let mut options = EmbedOptions::default();
    options.input_type = given["input_type"].as_str().map(str::to_owned);
    options.prompt = given["prompt"].as_str().map(str::to_owned);
    options.dimensions = given["dimensions"].as_u64().map(|size| size as u32);
    if given["on_overflow"] == "chunk" {
        options.on_overflow = Overflow::Chunk;
    }
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_counts_and_cuts_are_pythons() {
    assert_eq!(compare(folder()).await, 37);
}

/// `AKIDB_MINILM` is the directory of all-MiniLM-L6-v2.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "exports real weights"]
async fn minilms_vectors_are_pythons() {
    let minilm = env::var("AKIDB_MINILM").expect("AKIDB_MINILM must be the directory of all-MiniLM-L6-v2");
    assert_eq!(compare(&export("minilm", &["minilm", &minilm])).await, 1);
}

fn refusal(model: &str) -> String {
    let error = OnnxEmbeddingProvider::new(&path(model)).unwrap_err();
    assert!(matches!(error, EmbeddingError::Internal(_)), "{model}: {error:?}");
    error.to_string()
}

#[test]
fn a_damaged_or_hostile_file_is_refused() {
    for (model, reason) in [
        ("truncated", "not a whole ONNX file"),
        ("empty", "it holds 0 graphs"),
        ("random", "not a whole ONNX file"),
        ("outside", "outside of its folder"),
        ("absolute", "outside of its folder"),
        ("linked", "outside of its folder"),
        ("missing", "is missing"),
        ("negative", "cannot be loaded by ONNX Runtime"),
        ("domain", "operators of \"com.example\""),
        ("branch", "a graph of its own"),
        ("two-outputs", "cannot be loaded by ONNX Runtime"),
        ("no-metadata", "akidb-mlx export"),
        ("wrong-dimension", "expected [2, 33]"),
        ("no-default", "is not of 1..=64"),
        ("wrong-tokenizer", "akidb.tokenizer of its metadata cannot be read"),
        ("no-room", "leaves no room"),
        ("unpooled", "--no-pooling"),
    ] {
        let message = refusal(model);
        assert!(message.contains(reason), "{model}: {message}");
        assert!(message.len() < 700 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let good = fs::read(folder().join("tiny-bert/onnx/exported.onnx")).unwrap();
    let directory = folder().join("cut");
    fs::create_dir_all(directory.join("onnx")).unwrap();
    for part in 0..60 {
        let end = if part < 30 { part } else { good.len() * (part - 30) / 30 + 7 };
        fs::write(directory.join("onnx/exported.onnx"), &good[..end]).unwrap();
        let error = OnnxEmbeddingProvider::new(directory.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, EmbeddingError::Internal(_)), "{end}: {error:?}");
    }
}

#[tokio::test]
async fn weights_may_lie_beside_the_file() {
    assert!(folder().join("apart/onnx/exported.onnx_data").is_file());
    let (apart, whole) = (open("apart"), open("tiny-bert"));
    let one = apart.embed_batch(BatchEmbeddingRequest::new(path("apart"), ["a text"])).await.unwrap();
    let other = whole.embed_batch(BatchEmbeddingRequest::new(path("tiny-bert"), ["a text"])).await.unwrap();
    assert_eq!(one.embeddings, other.embeddings);
}

#[tokio::test]
async fn a_model_that_normalises_cannot_be_asked_not_to() {
    let mut request = BatchEmbeddingRequest::new(path("normalized"), ["a text"]);
    let provider = open("normalized");
    provider.embed_batch(request.clone()).await.unwrap();
    request.normalize = false;
    let error = provider.embed_batch(request).await.unwrap_err();
    assert!(
        matches!(&error, EmbeddingError::InvalidInput(_)) && error.to_string().contains("--normalize"),
        "{error:?}"
    );
}

#[tokio::test]
async fn options_that_a_model_does_not_have_are_refused() {
    let refused = async |model: &str, options: EmbedOptions| {
        let error = open(model).embed_with(BatchEmbeddingRequest::new(path(model), ["a"]), options).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{error:?}");
        error.to_string()
    };
    let options = EmbedOptions::default;
    assert!(refused("tiny-bert", options().with_dimensions(8)).await.contains("was not trained"));
    assert!(refused("tiny-bert", options().with_dimensions(0)).await.contains("found 0"));
    assert!(refused("tiny-gemma3", options().with_dimensions(1000)).await.contains("found 1000"));
    assert!(refused("tiny-bert", options().with_input_type("song")).await.contains("query, document, passage"));
    let long = options().with_on_overflow(Overflow::Chunk).with_prompt("word ".repeat(600));
    assert!(refused("tiny-bert", long).await.contains("cannot be chunked"));
    let error =
        OnnxEmbeddingProvider::open(&path("tiny-bert"), &OnnxOptions::default().with_dimensions(9)).unwrap_err();
    assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{error:?}");
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused_with_a_hint() {
    let provider = open("tiny-bert");
    let begin = |_| {
        let (provider, request) = (provider.clone(), BatchEmbeddingRequest::new(path("tiny-bert"), ["a"]));
        tokio::spawn(async move { provider.embed_batch(request).await })
    };
    // The runtime's only thread begins all of them before it takes up the answers, but for a few.
    let tasks: Vec<_> = (0..4500).map(begin).collect();
    let mut refused = 0;
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert!(matches!(error, EmbeddingError::ServiceUnavailable(_)), "{error:?}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
            refused += 1;
        }
    }
    assert!((1..=404).contains(&refused), "{refused} of 4500 were refused");
    provider.health_check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_call_does_not_wait_for_a_long_one() {
    let provider = open("tiny-bert");
    let long = BatchEmbeddingRequest::new(path("tiny-bert"), vec!["word ".repeat(40); 600]);
    let (held, begun) = (provider.clone(), tokio::time::Instant::now());
    let long = tokio::spawn(async move { held.embed_batch(long).await.unwrap().embeddings.len() });
    let mut answered = 0;
    while !long.is_finished() {
        provider.embed_batch(BatchEmbeddingRequest::new(path("tiny-bert"), ["a"])).await.unwrap();
        answered += 1;
    }
    assert_eq!(long.await.unwrap(), 600);
    assert!(answered > 10, "{answered} answers in {:?}", begun.elapsed());
}

#[tokio::test]
async fn closing_fails_what_waits() {
    let provider = open("tiny-bert");
    let long = BatchEmbeddingRequest::new(path("tiny-bert"), vec!["word ".repeat(40); 600]);
    let (outcome, closed) = tokio::join!(biased; provider.embed_batch(long), provider.close(false));
    closed.unwrap();
    let error = outcome.unwrap_err();
    assert!(
        matches!(&error, EmbeddingError::ServiceUnavailable(_)) && error.to_string().contains("closed"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_bridge_says_what_it_cannot_do() {
    let bridge = OnnxMlBridge::load(&path("tiny-bert"), OnnxOptions::default()).await.unwrap();
    let error = bridge.extract_entities("Ada").await.unwrap_err();
    assert!(matches!(&error, MlBridgeError::Unsupported(_)), "{error:?}");
    assert!(matches!(EmbeddingError::from(error), EmbeddingError::InvalidInput(_)));
    assert!(matches!(bridge.summarize(&[]).await, Err(MlBridgeError::Unsupported(_))));
    let error = OnnxMlBridge::new("org/nowhere").unwrap_err();
    assert!(matches!(EmbeddingError::from(error), EmbeddingError::ModelNotFound(_)));
}

/// Run by `names_are_found_in_the_cache`, as the environment of this process is shared by all tests.
#[test]
#[ignore = "needs an environment of its own"]
fn inner_finds_a_name() {
    match OnnxEmbeddingProvider::new(&env::var("AKIDB_TEST_NAME").unwrap()) {
        Ok(_) => println!("\nfound"),
        Err(error) => println!("\n{error:?}"),
    }
}

/// A cache with two commits of a model, of which "main" points to the older one.
fn cache() -> PathBuf {
    let root = folder().join("cache");
    let file = "onnx/exported.onnx";
    for (commit, refs, created, model) in [("a", &["main"][..], 1.0, "tiny-bert"), ("b", &["next"], 2.0, "tiny-gemma3")]
    {
        let place = root.join("models/org--tiny").join(commit.repeat(40));
        fs::create_dir_all(place.join("onnx")).unwrap();
        let size = fs::copy(folder().join(model).join(file), place.join(file)).unwrap();
        let files = json!({ file: { "size": size, "sha256": "" } });
        let record = json!({
            "version": 1, "repo_id": "org/tiny", "commit": commit.repeat(40), "refs": refs, "files": files,
            "source": "hub", "created": created, "pinned": false,
        });
        fs::write(place.join(".akidb-model.json"), record.to_string()).unwrap();
    }
    root
}

#[test]
fn names_are_found_in_the_cache() {
    let root = cache();
    let look = |name: &str| {
        let test = ["onnx_models::inner_finds_a_name", "--exact", "--ignored", "--nocapture"];
        let mut command = std::process::Command::new(env::current_exe().unwrap());
        let done = command.args(test).env("AKIDB_CACHE_DIR", &root).env("AKIDB_TEST_NAME", name).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    for name in ["org/tiny".to_owned(), "org/tiny@main".to_owned(), format!("org/tiny@{}", "b".repeat(40))] {
        assert!(look(&name).contains("\nfound"), "{}", look(&name));
    }
    for name in ["org/other", "org/tiny@other", "minilm-l6-v2", "../tiny", "org/../tiny", "a--b/c"] {
        assert!(look(name).contains("\nModelNotFound: ") && look(name).contains("akidb-mlx export"), "{}", look(name));
    }
    // The record says that it was longer.
    let file = root.join("models/org--tiny").join("a".repeat(40)).join("onnx/exported.onnx");
    let content = fs::read(&file).unwrap();
    fs::write(&file, &content[..1000]).unwrap();
    assert!(look("org/tiny").contains("has 1000 bytes and was recorded with"), "{}", look("org/tiny"));
    assert!(look("org/tiny@next").contains("\nfound"));
}

/// Run by `without_onnx_runtime_the_error_says_what_to_do`: a process loads the library once.
#[test]
#[ignore = "needs an environment of its own"]
fn inner_has_no_library() {
    let attempt = || OnnxEmbeddingProvider::new(&env::var("AKIDB_TEST_NAME").unwrap()).unwrap_err().to_string();
    let first = attempt();
    println!("\n{first}");
    assert_eq!(attempt(), first);
    assert!(std::thread::scope(|scope| scope.spawn(attempt).join()).is_ok_and(|again| again == first));
}

#[test]
fn without_onnx_runtime_the_error_says_what_to_do() {
    for library in ["/nowhere/libonnxruntime.so", file!()] {
        let test = ["onnx_models::inner_has_no_library", "--exact", "--ignored", "--nocapture"];
        let mut command = std::process::Command::new(env::current_exe().unwrap());
        let model = path("tiny-bert");
        let done = command.args(test).env("ORT_DYLIB_PATH", library).env("AKIDB_TEST_NAME", model).output().unwrap();
        let printed = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{printed}");
        assert!(printed.contains("cannot be loaded") && printed.contains("ORT_DYLIB_PATH"), "{printed}");
    }
}

#[test]
fn onnx_runtime_reports_nothing_to_its_makers() {
    // It would leave what it sends, and a number of this machine, in the home folder. CI switches it off too, so that
    // the process has no variable but these.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home");
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    let kept = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "ORT_DYLIB_PATH", "PYTHONHOME"];
    let test = ["onnx_models::inner_finds_a_name", "--exact", "--ignored", "--nocapture"];
    let mut command = std::process::Command::new(env::current_exe().unwrap());
    command.args(test).env_clear().env("HOME", &home).env("AKIDB_TEST_NAME", path("tiny-bert"));
    command.envs(kept.into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(printed.contains("\nfound"), "{printed}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}
