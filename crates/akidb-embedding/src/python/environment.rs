//! Which Python: an interpreter is found and asked what it is before the one in this process starts as it.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use std::{env, thread};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::exceptions::failure;
use crate::{MlBridgeError, MlBridgeResult};

/// Where an interpreter lies in a virtual environment or a prefix; the last in Homebrew's `python@3.x`.
const IN_FOLDER: [&str; 4] = ["bin/python3", "bin/python", "libexec/bin/python3", "libexec/bin/python"];

/// Prints the version as `Py_GetVersion` gives it, on one line, the interpreter and its path.
const QUESTION: &str = "import sys
print('akidb', ' '.join(sys.version.split()), sys.executable, *filter(None, sys.path), sep='\\n')";

/// The oldest Python, 3 and this, that akidb-mlx runs on.
const OLDEST_MINOR: u32 = 10;

/// How long an interpreter may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where Python and its packages are.
///
/// The default asks, in this order, `AKIDB_PYTHON` (an interpreter, or the folder of a virtual environment or prefix),
/// `VIRTUAL_ENV`, and `python3` on `PATH`. A process has one Python: the first environment that is used starts it, and
/// later ones only add what they know to `sys.path`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PythonEnvironment {
    python: Option<PathBuf>,
    sys_path: Vec<PathBuf>,
}

/// An interpreter, and what it said of itself; the version as [`short_version`] gives it.
struct Found {
    interpreter: PathBuf,
    version: String,
    sys_path: Vec<String>,
}

impl PythonEnvironment {
    /// Use an interpreter, or that in the folder of a virtual environment or prefix.
    pub fn at(python: impl Into<PathBuf>) -> Self {
        Self { python: Some(python.into()), sys_path: Vec::new() }
    }

    /// Also import from a folder, before all others.
    #[must_use]
    pub fn with_sys_path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.sys_path.push(folder.into());
        self
    }

    /// Start Python, unless the process has it, and make this environment's packages importable.
    ///
    /// It waits: for the interpreter's answer (tens of milliseconds), and for the GIL.
    ///
    /// # Errors
    ///
    /// `PythonInit`: there is no interpreter where one was looked for, it does not run, or it has another version than
    /// the libpython that this program is linked to.
    pub fn start(&self) -> MlBridgeResult<()> {
        self.started().map(|_| ())
    }

    /// [`start`](Self::start), and the interpreter, for messages.
    pub(crate) fn started(&self) -> MlBridgeResult<PathBuf> {
        let (python, named_by) = self.wanted()?;
        let found = ask(&interpreter(&python, &named_by)?, &named_by)?;
        check_version(&found, &named_by)?;
        if let Some(folder) = self.sys_path.iter().find(|folder| !folder.is_dir()) {
            return Err(init_error(format!("{} was to be imported from and is not a folder", folder.display())));
        }
        let hosts = start_as(&found.interpreter)?;
        Python::attach(|py| self.extend_sys_path(py, &found, hosts))
            .map_err(|error| MlBridgeError::PythonInit(Python::attach(|py| failure(py, &error))))?;
        Ok(found.interpreter)
    }

    /// What to look for, and what said so.
    fn wanted(&self) -> MlBridgeResult<(PathBuf, String)> {
        if let Some(python) = &self.python {
            return Ok((python.clone(), "PythonEnvironment::at".to_owned()));
        }
        for name in ["AKIDB_PYTHON", "VIRTUAL_ENV"] {
            if let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) {
                return Ok((value.into(), name.to_owned()));
            }
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&folders).map(|folder| folder.join("python3")).find(|python| python.is_file());
        on_path.map(|python| (python, "PATH".to_owned())).ok_or_else(|| {
            init_error(
                "no Python: AKIDB_PYTHON and VIRTUAL_ENV are not set, and PATH has no python3; set AKIDB_PYTHON to an \
                 interpreter or to the folder of a virtual environment that has akidb-mlx",
            )
        })
    }

    /// Add the environment's packages: behind all others or, in a Python that the host started, before the host's, which
    /// may be of other versions.
    fn extend_sys_path(&self, py: Python<'_>, found: &Found, hosts: bool) -> PyResult<()> {
        let sys_path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
        let before = sys_path.len();
        for entry in &found.sys_path {
            if sys_path.contains(entry)? {
                continue;
            }
            if entry.ends_with("-packages") {
                py.import("site")?.call_method1("addsitedir", (entry,))?; // its .pth files too
            } else {
                sys_path.append(entry)?;
            }
        }
        if hosts {
            let entries: Vec<String> = sys_path.extract()?;
            let first = entries.iter().position(|entry| entry.ends_with("-packages")).unwrap_or(before);
            if first < before {
                let added = sys_path.get_slice(before, entries.len());
                sys_path.del_slice(before, entries.len())?;
                sys_path.set_slice(first, first, &added)?;
            }
        }
        for folder in self.sys_path.iter().rev().map(|folder| folder.as_os_str()) {
            if !sys_path.contains(folder)? {
                sys_path.insert(0, folder)?;
            }
        }
        Ok(())
    }
}

/// The interpreter that a path names: itself, or one in the folder.
fn interpreter(python: &Path, named_by: &str) -> MlBridgeResult<PathBuf> {
    if python.is_file() {
        return Ok(python.to_owned());
    }
    let inside = IN_FOLDER.iter().map(|name| python.join(name)).find(|path| path.is_file());
    inside.ok_or_else(|| {
        let found = if python.is_dir() {
            "a folder without bin/python3"
        } else {
            "nothing"
        };
        init_error(format!(
            "no Python at {} (from {named_by}): found {found}; make a virtual environment there (python3 -m venv {0} && \
             {0}/bin/pip install akidb-mlx), or set AKIDB_PYTHON to an interpreter or to the folder of one that exists",
            python.display()
        ))
    })
}

/// Have an interpreter say what it is. What keeps it from starting would abort this process, so it is tried apart.
fn ask(interpreter: &Path, named_by: &str) -> MlBridgeResult<Found> {
    let refused = |what: &str| {
        init_error(format!(
            "{} (from {named_by}) is not a Python that works: {what}; set AKIDB_PYTHON to one that does, and see that \
             PYTHONHOME and PYTHONPATH are not set for another",
            interpreter.display()
        ))
    };
    let mut child = Command::new(interpreter)
        .args([OsStr::new("-c"), OsStr::new(QUESTION)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(&error.to_string()))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| refused(&error.to_string()))? {
            Some(status) => break status,
            None if began.elapsed() < PROBE_TIMEOUT => thread::sleep(Duration::from_millis(2)),
            None => {
                let killed = child.kill().and_then(|()| child.wait());
                return Err(refused(&format!("no answer within {PROBE_TIMEOUT:?}, then {killed:?}")));
            }
        }
    };
    let (mut answer, mut complaint) = (String::new(), String::new());
    for (pipe, text) in [
        (child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>), &mut answer),
        (child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>), &mut complaint),
    ] {
        pipe.into_iter()
            .try_for_each(|mut pipe| pipe.read_to_string(text).map(|_| ()))
            .map_err(|error| refused(&error.to_string()))?;
    }
    // What a sitecustomize prints comes first.
    let mut lines = answer.lines().skip_while(|line| *line != "akidb").map(str::to_owned);
    match (status.success(), lines.next().as_deref(), lines.next(), lines.next()) {
        (true, Some("akidb"), Some(version), Some(executable)) => {
            Ok(Found { interpreter: executable.into(), version: short_version(&version), sys_path: lines.collect() })
        }
        _ => {
            let telling = complaint.lines().rfind(|line| line.contains("Error") || line.contains("error"));
            let said = telling.or(complaint.lines().last()).unwrap_or("nothing to read");
            Err(refused(&format!("{status}, {said}")))
        }
    }
}

/// The compiled modules of a standard library and of an environment are for the libpython that they were built with.
///
/// Debian's libpython 3.11.2 starts as an environment of 3.11.7, and fails later, when `ssl` is imported.
fn check_version(found: &Found, named_by: &str) -> MlBridgeResult<()> {
    if is_too_old(&found.version) {
        return Err(init_error(format!(
            "{} (from {named_by}) is Python {}, and akidb-mlx needs 3.{OLDEST_MINOR} or newer: install one (python3 of \
             macOS itself is older; `brew install python@3.13`), make a virtual environment that has akidb-mlx, and set \
             AKIDB_PYTHON to its folder",
            found.interpreter.display(),
            found.version,
        )));
    }
    let linked = short_version(Python::version_str());
    if found.version == linked {
        return Ok(());
    }
    Err(init_error(format!(
        "{} (from {named_by}) is Python {}, and this program runs the libpython of Python {linked}{}: build again with \
         PYO3_PYTHON={0}, in a crate whose build.rs sets the rpath of that Python's shared library \
         (pyo3_build_config::add_libpython_rpath_link_args(), docs/rust.md), without which the system's loader may \
         take another; or set AKIDB_PYTHON to a Python {linked}",
        found.interpreter.display(),
        found.version,
        linked_library().map(|file| format!(" ({file})")).unwrap_or_default(),
    )))
}

/// Return whether a version such as "3.9.6" or "3.13.0t" is older than akidb-mlx runs on.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.trim_end_matches('t').split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(3), Some(OLDEST_MINOR))
}

/// Return the file of the libpython that this program runs, or the program itself where that is linked into it.
#[allow(unsafe_code)]
fn linked_library() -> Option<String> {
    let function: unsafe extern "C" fn() -> *const c_char = ffi::Py_GetVersion;
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is that of a function, and `info` is written before 1 is returned.
    let found = unsafe { libc::dladdr(function as *const c_void, info.as_mut_ptr()) };
    // SAFETY: zeroed, or written by `dladdr`: either is a value of this type.
    let name = unsafe { info.assume_init() }.dli_fname;
    // SAFETY: the name of a loaded file, which libpython stays.
    (found != 0 && !name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// Return the number at the beginning of a full version, as in "3.11.7", or "3.13.0t" where there is no GIL.
fn short_version(full: &str) -> String {
    let number = full.split_whitespace().next().unwrap_or_default();
    let free = if full.contains("free-threading") { "t" } else { "" };
    format!("{number}{free}")
}

/// Start Python as if it were this interpreter: from its place it finds the standard library and the environment. True
/// where the host had started it, the first time.
#[allow(unsafe_code)]
fn start_as(interpreter: &Path) -> MlBridgeResult<bool> {
    static START: Once = Once::new();
    let mut hosts = false;
    let name = interpreter.to_str().ok_or_else(|| {
        init_error(format!("{} is not UTF-8, which Python needs here; use another path", interpreter.display()))
    })?;
    START.call_once(|| {
        // SAFETY: may be called at any time.
        if unsafe { ffi::Py_IsInitialized() } == 0 {
            let wide: Vec<u32> = name.chars().map(u32::from).chain([0]).collect();
            // SAFETY: a wide character is UTF-32 on macOS and Linux; Python keeps the pointer, so the string is leaked.
            #[allow(deprecated, reason = "PyConfig, which is to be used instead, is not in the stable ABI")]
            unsafe {
                ffi::Py_SetProgramName(wide.leak().as_ptr().cast());
            }
            Python::initialize();
        } else {
            hosts = true;
        }
    });
    Ok(hosts)
}

fn init_error(message: impl Into<String>) -> MlBridgeError {
    MlBridgeError::PythonInit(message.into().into())
}
