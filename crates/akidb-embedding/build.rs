//! Lets this package's tests, examples and benchmarks find the libpython that they are linked to.

fn main() {
    #[cfg(feature = "python")]
    {
        pyo3_build_config::add_libpython_rpath_link_args();
        pyo3_build_config::add_python_framework_link_args();
    }
}
