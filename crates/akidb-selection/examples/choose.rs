//! Chooses for vectors that come as JSON lines: `cargo run --example choose -- knn_model.json < vectors.jsonl`.
//!
//! Each line is a list of numbers. The answer is one line, `{"label": …, "scores": [[label, value], …]}` or
//! `{"error": …}`.

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use akidb_selection::Selector;
use serde_json::json;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: choose FILE < vectors.jsonl");
        return ExitCode::from(2);
    };
    let answered = Selector::load(path).map_err(|error| error.to_string()).and_then(|selector| {
        answer_lines(&selector, io::stdin().lock(), io::stdout().lock()).map_err(|error| error.to_string())
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("choose: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_lines(selector: &Selector, lines: impl BufRead, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    for line in lines.lines() {
        let answer = answer(selector, &line?).unwrap_or_else(|error| json!({ "error": error }));
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
    }
    out.flush()
}

fn answer(selector: &Selector, line: &str) -> Result<serde_json::Value, String> {
    let vector: Vec<f64> = serde_json::from_str(line).map_err(|error| format!("not a list of numbers: {error}"))?;
    let label = selector.select(&vector).map_err(|error| error.to_string())?;
    let scores = selector.scores(&vector).map_err(|error| error.to_string())?;
    Ok(json!({ "label": label, "scores": scores }))
}
