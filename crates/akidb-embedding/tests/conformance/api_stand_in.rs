//! A server with an OpenAI-compatible API on this machine, which fails as it is told.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

pub const DIMENSION: usize = 16;
pub const KEY: &str = "sk-secret-0123456789";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: String,
    pub body: Value,
    /// How many came before it.
    pub number: usize,
}

impl Received {
    pub fn inputs(&self) -> Vec<String> {
        serde_json::from_value(self.body["input"].clone()).unwrap_or_default()
    }
}

/// The answer to a request: its status, further header lines, and the body.
pub struct Reply {
    pub status: u16,
    pub headers: &'static str,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: "", body: body.into() }
    }

    pub fn with_headers(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }
}

pub struct StandIn {
    pub address: String,
    received: mpsc::UnboundedReceiver<Received>,
    /// The most requests that ran at once.
    pub most_at_once: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl StandIn {
    /// Answer requests by a function, each on a thread of its own.
    pub fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let (sender, received) = mpsc::unbounded_channel();
        let (most_at_once, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, ended) = (Arc::clone(&most_at_once), Arc::clone(&stopped));
        let (answer, running, count) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (answer, sender, most) = (Arc::clone(&answer), sender.clone(), Arc::clone(&most));
                let (running, count) = (Arc::clone(&running), Arc::clone(&count));
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = receive(&stream, &count) else { return };
                    most.fetch_max(running.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                    let _ = sender.send(request.clone());
                    let reply = answer(&request);
                    running.fetch_sub(1, Ordering::AcqRel);
                    let (status, headers, length) = (reply.status, reply.headers, reply.body.len());
                    let head = format!(
                        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
                    );
                    // A client that has gone does not want it.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body));
                });
            }
        });
        Self { address, received, most_at_once, stopped }
    }

    /// All requests so far.
    pub fn received(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let host = self.address.trim_start_matches("http://").trim_end_matches("/v1");
        let _ = TcpStream::connect(host);
    }
}

fn receive(stream: &TcpStream, count: &AtomicUsize) -> Option<Received> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut line, mut headers) = (String::new(), String::new());
    reader.read_line(&mut line).ok()?;
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        reader.read_line(&mut headers).ok().filter(|read| *read > 0)?;
    }
    let headers = headers.to_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let number = count.fetch_add(1, Ordering::AcqRel);
    Some(Received { path, headers, body: serde_json::from_slice(&body).ok()?, number })
}

/// A vector of length 1 that depends on the text alone.
pub fn vector(text: &str, dimension: usize) -> Vec<f32> {
    let value = |place: usize| {
        let mut hasher = DefaultHasher::new();
        (text, place).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..dimension).map(value).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter().map(|value| value / length).collect()
}

/// The right answer to a request for embeddings, which a test may spoil.
pub fn embeddings(request: &Received) -> Value {
    use base64::Engine;
    let dimension = request.body["dimensions"].as_u64().map_or(DIMENSION, |size| size as usize);
    let inputs = request.inputs();
    let entry = |(index, text): (usize, &String)| {
        let bytes: Vec<u8> = vector(text, dimension).into_iter().flat_map(f32::to_le_bytes).collect();
        json!({ "index": index, "embedding": base64::prelude::BASE64_STANDARD.encode(bytes) })
    };
    let tokens: usize = inputs.iter().map(|text| text.split_whitespace().count() + 1).sum();
    json!({
        "object": "list",
        "model": request.body["model"],
        "data": inputs.iter().enumerate().map(entry).collect::<Vec<_>>(),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })
}

/// Answer as an API does that refuses texts with the word "forbidden", and summarises.
pub fn well(request: &Received) -> Reply {
    if request.path.ends_with("/chat/completions") {
        let answer = json!({ "choices": [{ "message": { "role": "assistant", "content": " A summary. " } }] });
        return Reply::new(200, answer.to_string());
    }
    if request.inputs().iter().any(|text| text.contains("forbidden")) {
        return Reply::new(400, json!({ "error": { "message": "an input is not allowed" } }).to_string());
    }
    Reply::new(200, embeddings(request).to_string())
}
