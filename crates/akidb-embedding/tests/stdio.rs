//! `akidb-mlx stdio`, driven as AkiDB's client drives its script: a child, two pipes, a lock around each.
#![cfg(all(feature = "python", target_os = "linux"))]

mod common;

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{repository, run_apart, sentences};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    message: Option<String>,
    embeddings: Option<Vec<Vec<f32>>>,
    dimension: Option<u32>,
    count: Option<usize>,
}

struct Client {
    process: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    stdout: Mutex<BufReader<ChildStdout>>,
}

impl Client {
    /// Start the program, and wait for the answers that AkiDB waits for: a ping, the model, a first text.
    async fn start() -> Result<Self> {
        let mut process = Command::new(interpreter())
            .args(["-m", "akidb_mlx", "stdio"])
            .env("PYTHONPATH", repository())
            .env("AKIDB_DEVICE", "cpu")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let client =
            Self { process: Mutex::new(process), stdin: Mutex::new(stdin), stdout: Mutex::new(BufReader::new(stdout)) };
        let pong = client.ask(&json!({"method": "ping", "params": {}})).await?;
        assert_eq!((pong.status.as_str(), pong.message.as_deref()), ("ok", Some("pong")));
        let load = json!({"model": model(), "cache_dir": "~/.cache/akidb/models"});
        let loaded = client.ask(&json!({"method": "load_model", "params": load})).await?;
        assert_eq!((loaded.status.as_str(), loaded.dimension), ("ok", Some(64)), "{loaded:?}");
        client.embed(&["warmup"]).await?;
        Ok(client)
    }

    /// Write a request, and read the answer whose turn is the same. The turn among the readers is taken while the lock
    /// for writing is held; AkiDB's client releases that first, and two of its callers can swap their answers.
    async fn ask(&self, request: &Value) -> Result<Answer> {
        let mut turn = pin!(self.stdout.lock());
        let mut stdin = self.stdin.lock().await;
        stdin.write_all(format!("{request}\n").as_bytes())?;
        stdin.flush()?;
        let taken = poll_fn(|context| Poll::Ready(turn.as_mut().poll(context))).await;
        drop(stdin);
        let mut stdout = match taken {
            Poll::Ready(stdout) => stdout,
            Poll::Pending => turn.await,
        };
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| Error::new(ErrorKind::UnexpectedEof, error))
    }

    async fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        let inputs: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let params = json!({"model": model(), "inputs": inputs, "normalize": true});
        let answer = self.ask(&json!({"method": "embed_batch", "params": params})).await?;
        assert_eq!((answer.status.as_str(), answer.count), ("ok", Some(texts.len())), "{:?}", answer.message);
        Ok(answer.embeddings.unwrap())
    }

    async fn kill(&self) {
        let mut process = self.process.lock().await;
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Close standard input, and wait for the end.
    async fn end(self) {
        drop(self.stdin);
        let mut process = self.process.lock().await;
        let began = Instant::now();
        while process.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < LIMIT, "it did not end with its input");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(process.wait().unwrap().success());
    }
}

/// The interpreter that the crate would take, too.
fn interpreter() -> PathBuf {
    let named = std::env::var_os("AKIDB_PYTHON").or_else(|| std::env::var_os("VIRTUAL_ENV")).map(PathBuf::from);
    match named {
        Some(folder) if folder.is_dir() => folder.join("bin/python3"),
        Some(python) => python,
        None => PathBuf::from("python3"),
    }
}

fn model() -> String {
    repository().join("tests/goldens/tiny-bert").to_string_lossy().into_owned()
}

fn four_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

fn assert_close(vector: &[f32], expected: &[f32], text: &str) {
    let close = vector.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close && vector.len() == expected.len(), "a wrong vector for {text:?}");
}

/// Ask for `requests` texts from 64 tasks, and check each vector; every text has its own.
fn sixty_four_tasks(requests: usize) {
    const TASKS: usize = 64;
    let texts = Arc::new(sentences(256));
    four_threads().block_on(async {
        let client = Arc::new(Client::start().await.unwrap());
        let expected = Arc::new(client.embed(&texts).await.unwrap());
        let began = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (client, texts, expected) = (Arc::clone(&client), Arc::clone(&texts), Arc::clone(&expected));
                tokio::spawn(async move {
                    for index in (task..requests).step_by(TASKS).map(|number| (number * 7) % texts.len()) {
                        let answer = tokio::time::timeout(LIMIT, client.embed(&texts[index..=index])).await;
                        let vectors = answer.expect("a hang").unwrap();
                        assert_eq!(vectors.len(), 1);
                        assert_close(&vectors[0], &expected[index], &texts[index]);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!("{requests} requests of {TASKS} tasks: {:.2?}", began.elapsed());
        Arc::into_inner(client).unwrap().end().await;
    });
}

/// Kill the child under 64 tasks; each gets an answer or an error, and a new child serves the next ones.
fn kills(times: usize) {
    let texts = Arc::new(sentences(64));
    four_threads().block_on(async {
        let mut expected = Vec::new();
        for round in 0..times {
            let client = Arc::new(Client::start().await.unwrap());
            let vectors = client.embed(&texts).await.unwrap();
            if round == 0 {
                expected.clone_from(&vectors);
            }
            assert_eq!(vectors, expected, "the same batch has the same vectors in every process");
            let tasks: Vec<_> = (0..texts.len())
                .map(|index| {
                    let (client, texts, expected) = (Arc::clone(&client), Arc::clone(&texts), expected[index].clone());
                    tokio::spawn(async move {
                        let mut answered = 0;
                        while let Ok(vectors) = client.embed(&texts[index..=index]).await {
                            assert_close(&vectors[0], &expected, &texts[index]);
                            answered += 1;
                        }
                        answered
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(20 + 37 * (round as u64 % 10))).await;
            client.kill().await;
            let mut answered = 0;
            for task in tasks {
                answered += tokio::time::timeout(LIMIT, task).await.expect("a hang").unwrap();
            }
            println!("round {round}: {answered} requests were answered before the child was killed");
        }
    });
}

#[test]
fn a_thousand_requests_of_64_tasks() {
    sixty_four_tasks(1000);
}

#[test]
#[ignore = "make test-load"]
fn ten_thousand_requests_of_64_tasks() {
    sixty_four_tasks(10_000);
}

#[test]
fn a_child_that_is_killed_fails_its_requests_and_another_takes_its_place() {
    kills(2);
}

#[test]
#[ignore = "make test-load"]
fn twenty_children_that_are_killed() {
    kills(20);
}

/// Leaves a child with requests that are not answered, prints the child's id, and dies without any clean-up.
#[test]
#[ignore = "a program of the test below"]
fn a_parent_that_dies() {
    Builder::new_current_thread().build().unwrap().block_on(async {
        let client = Client::start().await.unwrap();
        println!("child {}", client.process.lock().await.id());
        let request = json!({"method": "embed_batch", "params": {"model": model(), "inputs": sentences(2000)}});
        client.stdin.lock().await.write_all(format!("{request}\n").as_bytes()).unwrap();
        std::process::abort();
    });
}

#[test]
fn a_child_ends_with_its_parent() {
    let output = run_apart("a_parent_that_dies", &[], LIMIT).expect("the parent did not die");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let child = said.split("child ").nth(1).unwrap_or_else(|| panic!("{said}")).lines().next().unwrap();
    let status = Path::new("/proc").join(child).join("stat");
    let began = Instant::now();
    // A process that has ended and that nobody has waited for is a zombie, Z.
    while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(began.elapsed() < LIMIT, "the child outlives its parent");
        std::thread::sleep(Duration::from_millis(20));
    }
}
