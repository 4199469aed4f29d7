//! Tells where the web app was built. Without it the server answers requests of programs, and says that it has no pages.

use std::path::Path;

fn main() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/dist");
    // The page names every part by its digest, so it is another one whenever anything is.
    println!("cargo:rerun-if-changed={}", built.join("index.html").display());
    let folder = if built.join("index.html").exists() {
        built
    } else {
        #[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by the environment")]
        let out = std::env::var_os("OUT_DIR").unwrap_or_default();
        let empty = Path::new(&out).join("no-web");
        if let Err(error) = std::fs::create_dir_all(&empty) {
            panic!("`{}` cannot be made: {error}", empty.display());
        }
        empty
    };
    println!("cargo:rustc-env=SUBAK_WEB={}", folder.display());
}
