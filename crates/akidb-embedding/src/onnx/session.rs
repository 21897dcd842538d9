//! A session of ONNX Runtime for one model.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::available_parallelism;

use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};

use super::text::Ids;
use crate::EmbeddingResult;
use crate::failures::{broken, excerpt};

const INPUTS: [&str; 2] = ["input_ids", "attention_mask"];
const OUTPUT: &str = "sentence_embedding";
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";
/// The name by which the system's loader finds the library where none is named.
const LIBRARY: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// A model that is loaded. ONNX Runtime computes one batch at a time, on all cores.
pub(crate) struct Model {
    session: Session,
    dimension: usize,
}

impl Model {
    /// Load a file that was inspected, and try it on a few tokens.
    ///
    /// # Errors
    ///
    /// `Internal`: there is no ONNX Runtime, or it refuses the file, or the model is another than the file says.
    pub(crate) fn load(file: &Path, dimension: usize, library: Option<&Path>) -> EmbeddingResult<Self> {
        start(library)?;
        let refused = |error: &dyn Display| {
            let reason = excerpt(&error.to_string(), 300);
            broken(format!("{} cannot be loaded by ONNX Runtime: {reason}", file.display()))
        };
        let session =
            options().and_then(|mut options| options.commit_from_file(file)).map_err(|error| refused(&error))?;
        check_signature(&session).map_err(|reason| refused(&reason))?;
        let mut model = Self { session, dimension };
        model.run(&[&[0, 0].to_vec(), &[0].to_vec()]).map_err(|error| refused(&error))?;
        release_memory();
        Ok(model)
    }

    /// Return the vectors of token ids, one after another.
    ///
    /// # Errors
    ///
    /// `Internal`, as for a file whose vectors have another size than it says.
    pub(crate) fn run(&mut self, rows: &[&Ids]) -> EmbeddingResult<Vec<f32>> {
        let length = rows.iter().map(|ids| ids.len()).max().unwrap_or_default();
        let shape = [rows.len(), length];
        let (mut ids, mut mask) = (vec![0_i64; rows.len() * length], vec![0_i64; rows.len() * length]);
        for (row, (ids, mask)) in rows.iter().zip(ids.chunks_exact_mut(length).zip(mask.chunks_exact_mut(length))) {
            ids.iter_mut().zip(*row).for_each(|(place, &number)| *place = i64::from(number));
            mask[..row.len()].fill(1);
        }
        let dimension = self.dimension;
        let vectors = Tensor::from_array((shape, ids)).and_then(|ids| {
            let mask = Tensor::from_array((shape, mask))?;
            let outputs = self.session.run(ort::inputs![INPUTS[0] => ids, INPUTS[1] => mask])?;
            let (shape, values) = outputs[OUTPUT].try_extract_tensor::<f32>()?;
            let wanted = [rows.len() as i64, dimension as i64];
            Ok(if shape[..] == wanted { Ok(values.to_vec()) } else { Err(format!("{shape:?}, expected {wanted:?}")) })
        });
        vectors
            .map_err(|error| broken(format!("ONNX Runtime: {}", excerpt(&error.to_string(), 300))))?
            .map_err(|found| broken(format!("the output {OUTPUT} has the shape {found}, as the file's metadata say")))
    }
}

/// Give what loading freed back to the system: glibc keeps it for later calls, a fifth of a small model's memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn release_memory() {
    // SAFETY: the function takes a number, and is safe on any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn release_memory() {}

/// Load the library, if none is loaded yet.
///
/// The first attempt counts: after one that failed, ort would take memory that holds no library for one.
fn start(library: Option<&Path>) -> EmbeddingResult<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        forbid_telemetry();
        let named = || env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = library.map(Path::to_owned).or_else(named).unwrap_or_else(|| LIBRARY.into());
        let environment = ort::init_from(&path).map_err(|error| excerpt(&error.to_string(), 300))?;
        // It has no effect where the host has made one already, which is its own affair.
        environment.with_telemetry(false).commit();
        Ok(())
    });
    started.clone().map_err(|reason| {
        broken(format!(
            "ONNX Runtime 1.23 or newer cannot be loaded ({reason}): install it, name its library in ORT_DYLIB_PATH or \
             with OnnxOptions::with_library, and start the program anew"
        ))
    })
}

/// Keep ONNX Runtime from reporting to its makers how it is used, as it does since version 1.29 unless it finds a
/// variable when it starts. A value that the host has set stays.
#[allow(unsafe_code)]
fn forbid_telemetry() {
    if env::var_os(NO_TELEMETRY).is_none() {
        // SAFETY: Rust's own readers of the environment are locked out meanwhile. A host whose C code reads it on other
        // threads sets the variable before it starts them, and then nothing is written here.
        unsafe { env::set_var(NO_TELEMETRY, "1") };
    }
}

fn options() -> ort::Result<SessionBuilder> {
    let threads = available_parallelism().map_or(1, usize::from);
    Ok(Session::builder()?
        .with_intra_threads(threads)?
        // Threads that wait would else take a core from the rest of the process.
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        // Not in an arena, which grows in powers of two.
        .with_config_entry("session.use_device_allocator_for_initializers", "1")?
        // Only what ends the process is logged; all else comes as an error.
        .with_log_level(LogLevel::Fatal)?)
}

/// Refuse a model with other inputs and outputs than an exported one has.
fn check_signature(session: &Session) -> Result<(), String> {
    let inputs: Vec<&str> = session.inputs().iter().map(Outlet::name).collect();
    if inputs != INPUTS {
        return Err(format!("its inputs are {}, expected {}", inputs.join(", "), INPUTS.join(", ")));
    }
    let is = |outlet: &Outlet, wanted| matches!(outlet.dtype(), ValueType::Tensor { ty, .. } if ty == &wanted);
    if !session.inputs().iter().all(|input| is(input, TensorElementType::Int64)) {
        return Err("its inputs are not of the type int64".to_owned());
    }
    let [output] = session.outputs() else { return Err("it has not one output".to_owned()) };
    if output.name() != OUTPUT || !is(output, TensorElementType::Float32) {
        return Err(format!("its output is {}, expected {OUTPUT} of the type float32", output.name()));
    }
    Ok(())
}
