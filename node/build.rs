//! Lists the files of the page, so that the program can carry them.
//!
//! The page's WebAssembly is built before the node and lies in `www/wasm`; without it the node
//! still builds, and says at run time what is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Endings of what the page is made of; anything else in the directory is not served.
const ENDINGS: [&str; 10] = [
    "html",
    "css",
    "js",
    "wasm",
    "svg",
    "png",
    "ico",
    "webmanifest",
    "woff2",
    "txt",
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let www = manifest
        .parent()
        .expect("the node is a member of a workspace")
        .join("www");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", www.display());
    let mut files = Vec::new();
    list(&www, "", &mut files);
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").expect("a string grows");
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("assets.rs");
    fs::write(out, code).expect("OUT_DIR is writable");
}

fn list(directory: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if path.is_dir() {
            list(&path, &format!("{prefix}{name}/"), files);
        } else if name
            .rsplit_once('.')
            .is_some_and(|(_, ending)| ENDINGS.contains(&ending))
        {
            files.push((format!("{prefix}{name}"), path));
        }
    }
}
