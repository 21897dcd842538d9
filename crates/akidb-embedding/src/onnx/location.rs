//! The file of a model: in a directory, or in the cache that Python's `model_cache` keeps (docs/cache.md).
//!
//! The cache is only read. A model that is evicted meanwhile stays whole for whoever has opened its files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

use crate::failures::{broken, excerpt};
use crate::{EmbeddingError, EmbeddingResult};

/// The files that are looked for below a model's directory, in this order.
const NAMES: [&str; 2] = ["onnx/exported.onnx", "onnx/model.onnx"];
const RECORD: &str = ".akidb-model.json";

/// What the cache noted of a model.
#[derive(Deserialize)]
struct Record {
    commit: String,
    #[serde(default)]
    refs: Vec<String>,
    files: HashMap<String, RecordedFile>,
    created: f64,
}

#[derive(Deserialize)]
struct RecordedFile {
    size: u64,
}

/// Return the ONNX file of a directory, of `org/repo` or of `org/repo@revision`.
///
/// # Errors
///
/// `ModelNotFound` where there is none, `Internal` where the cache's record says that it is not whole.
pub(crate) fn find(name: &str) -> EmbeddingResult<PathBuf> {
    if Path::new(name).is_dir() {
        return in_directory(Path::new(name)).ok_or_else(|| not_exported(name));
    }
    let (repository, revision) = name.split_once('@').map_or((name, None), |(name, revision)| (name, Some(revision)));
    if !is_repository(repository) {
        let message = format!(
            "{:?} is neither a directory nor a model's name in the cache, as in org/repo or org/repo@revision; write one \
             with `akidb-mlx export NAME -o DIRECTORY`",
            excerpt(name, 200)
        );
        return Err(EmbeddingError::ModelNotFound(message.into()));
    }
    let folder = cache()?.join(repository.replace('/', "--"));
    let mut found: Vec<(PathBuf, Record)> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), read_record(&entry.path())?)))
        .filter(|(_, record)| {
            revision.is_none_or(|wanted| record.commit == wanted || record.refs.iter().any(|r| r == wanted))
        })
        .collect();
    // As Python chooses: what "main" points to first, then the newest.
    found.sort_by(|(_, one), (_, other)| rank(other).0.cmp(&rank(one).0).then(rank(other).1.total_cmp(&rank(one).1)));
    if found.is_empty() {
        let message = format!(
            "{name} is not in the cache ({}), and nothing is downloaded here: run `akidb-mlx pull {name}` and `akidb-mlx \
             export {name}`",
            folder.display()
        );
        return Err(EmbeddingError::ModelNotFound(message.into()));
    }
    let exported = found.iter().find_map(|(path, record)| Some((path, record, in_directory(path)?)));
    let (path, record, file) = exported.ok_or_else(|| not_exported(name))?;
    check(path, record, &file)?;
    Ok(file)
}

fn rank(record: &Record) -> (bool, f64) {
    (record.refs.iter().any(|name| name == "main"), record.created)
}

fn in_directory(directory: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| directory.join(name)).find(|file| file.is_file())
}

fn not_exported(name: &str) -> EmbeddingError {
    let message = format!("{name} has no file {}: write one with `akidb-mlx export {name}`", NAMES.join(" and no "));
    EmbeddingError::ModelNotFound(message.into())
}

fn read_record(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()
}

/// Compare the sizes of the ONNX files with the record, as Python does when it opens a model.
fn check(folder: &Path, record: &Record, file: &Path) -> EmbeddingResult<()> {
    let name = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().replace('\\', "/");
    for name in [name.clone(), format!("{name}_data")] {
        let Some(recorded) = record.files.get(&name) else { continue };
        let found = fs::metadata(folder.join(&name)).map(|found| found.len()).ok();
        if found != Some(recorded.size) {
            return Err(broken(format!(
                "{} has {} bytes and was recorded with {}: export the model again, or run `akidb-mlx verify --repair`",
                folder.join(&name).display(),
                found.map_or("no".to_owned(), |size| size.to_string()),
                recorded.size
            )));
        }
    }
    Ok(())
}

/// The folder that models lie in, by the same rules as Python's.
fn cache() -> EmbeddingResult<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("AKIDB_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("akidb")))
        .or_else(|| Some(env::home_dir()?.join(".cache/akidb")));
    let folder = folder.ok_or_else(|| {
        EmbeddingError::ModelNotFound("there is no home folder: set AKIDB_CACHE_DIR to the cache's folder".into())
    })?;
    let folder = match (folder.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder,
    };
    Ok(folder.join("models"))
}

/// Whether a text is a repository's name by the Hub's rule, so that a path can be made of it.
fn is_repository(name: &str) -> bool {
    let good = |part: &str| {
        let ends = |character: Option<char>| character.is_some_and(|one| one.is_ascii_alphanumeric() || one == '_');
        ends(part.chars().next())
            && ends(part.chars().next_back())
            && part.len() <= 96
            && part.chars().all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one))
    };
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() == 2 && parts.into_iter().all(good) && !name.contains("..") && !name.contains("--")
}
