//! The checked-in header is the one that cbindgen makes: `AKIDB_WRITE_HEADER=1 cargo test -p akidb-selection --test header`.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_source() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        include_guard: Some("AKIDB_SELECTION_H".to_owned()),
        header: Some(
            "/* Made by cbindgen from src/ffi.rs: AKIDB_WRITE_HEADER=1 cargo test -p akidb-selection --test header */"
                .to_owned(),
        ),
        cpp_compat: true,
        style: cbindgen::Style::Both,
        documentation_style: cbindgen::DocumentationStyle::C99,
        enumeration: cbindgen::EnumConfig {
            prefix_with_name: true,
            rename_variants: cbindgen::RenameRule::ScreamingSnakeCase,
            ..Default::default()
        },
        ..Default::default()
    };
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(crate_folder.join("src/ffi.rs"))
        .generate()
        .unwrap()
        .write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = crate_folder.join("include/akidb_selection.h");
    if std::env::var_os("AKIDB_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), made);
}
