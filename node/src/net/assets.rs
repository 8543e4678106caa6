//! The page, from inside the program.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::reply;
use crate::error::ApiError;

/// Names relative to the page's directory, and contents.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// What shows the page when no node answers.
const WORKER: &str = "sw.js";

struct Asset {
    bytes: Bytes,
    /// Only where it is smaller.
    gzip: Option<Bytes>,
    etag: HeaderValue,
    content_type: &'static str,
}

static ASSETS: LazyLock<BTreeMap<&'static str, Asset>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(name, bytes)| {
            let bytes = match *name {
                WORKER => [shell().as_bytes(), bytes].concat().into(),
                _ => Bytes::from_static(bytes),
            };
            (*name, Asset::new(name, bytes))
        })
        .collect()
});

/// What the service worker has to know: the page's files as paths, and a version that changes with any of
/// them.
fn shell() -> String {
    let mut version = blake3::Hasher::new();
    for (name, bytes) in FILES {
        version.update(name.as_bytes());
        version.update(blake3::hash(bytes).as_bytes());
    }
    let version = &version.finalize().to_hex()[..16];
    let others = FILES.iter().filter(|(name, _)| *name != WORKER);
    let files: Vec<String> = others.map(|(name, _)| format!("/{name}")).collect();
    let shell = serde_json::json!({ "version": version, "files": files });
    format!("self.shell = {shell};\n")
}

impl Asset {
    fn new(name: &str, bytes: Bytes) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = encoder.write_all(&bytes).and_then(|()| encoder.finish());
        let gzip = gzip.expect("memory takes any bytes");
        let etag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        Self {
            gzip: (gzip.len() < bytes.len()).then(|| gzip.into()),
            etag: HeaderValue::from_str(&etag).expect("hexadecimal digits"),
            content_type: content_type(name),
            bytes,
        }
    }
}

/// Whether `path`, without its leading slash, is a file of the page. The page's WebAssembly always
/// is, so that its absence can be explained.
pub fn exists(path: &str) -> bool {
    ASSETS.contains_key(file(path)) || path.starts_with("wasm/")
}

/// The answer for a file of the page. Browsers ask each time and get 304 when nothing changed.
///
/// # Errors
/// 404 for what is no file of the page, 503 for WebAssembly that was not there at build time.
pub fn serve(path: &str, request: &HeaderMap) -> Result<Response, ApiError> {
    let name = file(path);
    let Some(asset) = ASSETS.get(name) else {
        return Err(absent(path));
    };
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, asset.etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if matches(request, &asset.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(asset.content_type),
    );
    let body = match &asset.gzip {
        Some(gzip) if accepts_gzip(request) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            gzip.clone()
        }
        _ => asset.bytes.clone(),
    };
    *response.body_mut() = body.into();
    Ok(response)
}

/// The file behind a path: the page itself for the root.
fn file(path: &str) -> &str {
    if path.is_empty() { "index.html" } else { path }
}

fn absent(path: &str) -> ApiError {
    if path.starts_with("wasm/") || path.is_empty() {
        return ApiError::new(
            503,
            "not_built",
            "this program was built without the page's WebAssembly",
            "build with `make build`, which makes it first",
        );
    }
    reply::no_such_route(path)
}

fn matches(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.as_bytes();
    let values = request.get_all(header::IF_NONE_MATCH);
    values
        .iter()
        .flat_map(|value| value.as_bytes().split(|c| *c == b','))
        .any(|candidate| {
            let candidate = candidate.trim_ascii();
            candidate == b"*" || candidate.strip_prefix(b"W/").unwrap_or(candidate) == etag
        })
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(header::ACCEPT_ENCODING);
    let mut encodings = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    encodings.any(|encoding| {
        let (name, quality) = encoding.split_once(';').unwrap_or((encoding, ""));
        name.trim().eq_ignore_ascii_case("gzip")
            && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_type_of_its_own() {
        for (name, _) in FILES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn the_service_worker_knows_the_files_of_the_page_and_no_more() {
        let text = std::str::from_utf8(&ASSETS[WORKER].bytes).expect("text");
        let (first, rest) = text.split_once('\n').expect("lines");
        let shell = first.strip_prefix("self.shell = ").expect("the shell");
        let shell: serde_json::Value =
            serde_json::from_str(shell.trim_end_matches(';')).expect("JSON");
        assert_eq!(shell["version"].as_str().map(str::len), Some(16));
        let files = shell["files"].as_array().expect("a list");
        assert_eq!(files.len(), FILES.len() - 1);
        for file in files {
            let path = file.as_str().expect("a path").trim_start_matches('/');
            assert!(path != WORKER && exists(path), "{path}");
        }
        assert!(rest.contains("addEventListener"), "{rest}");
    }

    #[test]
    fn a_phone_loads_little() {
        // A browser takes one of the two kernels; the larger one counts.
        let travels = |asset: &Asset| asset.gzip.as_ref().map_or(asset.bytes.len(), Bytes::len);
        let of = |prefix: &str| -> usize {
            let files = ASSETS.iter().filter(|(name, _)| name.starts_with(prefix));
            files.map(|(_, asset)| travels(asset)).sum()
        };
        let kernel = of("wasm/simd/").max(of("wasm/relaxed/"));
        // Who computes over plain http loads neither the steps to https nor what an installed page needs.
        let others = [
            "ca.html",
            "js/ca.js",
            WORKER,
            "icons/icon-192.png",
            "icons/maskable.svg",
        ];
        let others: usize = others.map(of).iter().sum();
        let page = of("") - of("wasm/") - others + kernel;
        println!("the page and one kernel: {page} bytes, {kernel} of them the kernel");
        assert!(page <= 300_000, "{page} bytes");
    }

    #[test]
    fn what_is_no_file_is_not_found_and_missing_wasm_is_explained() {
        let none = HeaderMap::new();
        for path in [
            "../Cargo.toml",
            "..%2fCargo.toml",
            "js/../../Cargo.toml",
            "..%5cCargo.toml",
            "C:/x",
            "js",
            "js/",
            "index.html/",
            ".gitignore",
            "nothing.js",
        ] {
            assert!(!exists(path), "{path}");
            assert_eq!(
                serve(path, &none).expect_err("no file").status,
                404,
                "{path}"
            );
        }
        assert!(exists("wasm/no-such.wasm"));
        let error = serve("wasm/no-such.wasm", &none).expect_err("not built");
        assert_eq!((error.status, error.code), (503, "not_built"));
    }

    #[test]
    fn a_known_tag_is_answered_without_a_body() {
        for (name, _) in FILES {
            let mut request = HeaderMap::new();
            let first = serve(name, &request).expect("a file");
            let etag = first.headers()[header::ETAG].clone();
            assert!(
                !first.headers().contains_key(header::CONTENT_ENCODING),
                "{name}"
            );
            request.insert(header::IF_NONE_MATCH, etag);
            assert_eq!(
                serve(name, &request).expect("a file").status(),
                304,
                "{name}"
            );
        }
    }

    #[test]
    fn compressed_only_when_asked_for() {
        for (value, expected) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.8", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&request), expected, "{value}");
        }
    }
}
