//! Models that Python exported, made once for a run of the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use akidb_embedding::OnnxEmbeddingProvider;

/// The folder of the tiny models, of the damaged ones, and of `calls.json`.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| export("exported", &[]))
}

/// Run `export_models.py`, with the Python that the tests use elsewhere too; the crate itself needs none.
pub fn export(name: &str, arguments: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let python = PathBuf::from(env::var_os("AKIDB_PYTHON").expect("AKIDB_PYTHON must name a Python, as `make` does"));
    let interpreter = if python.is_dir() { python.join("bin/python") } else { python };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/export_models.py");
    let done = Command::new(interpreter).arg(script).arg(&folder).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    folder
}

pub fn path(model: &str) -> String {
    folder().join(model).to_str().unwrap().to_owned()
}

pub fn open(model: &str) -> OnnxEmbeddingProvider {
    OnnxEmbeddingProvider::new(&path(model)).unwrap()
}
