//! The recorded bits of random products, as the kernel's own tests hold them against the native
//! instances: here in a browser, once for each of the two builds.

#[path = "../../kernel/tests/common/sample.rs"]
mod sample;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as test, wasm_bindgen_test_configure};

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_browser);

#[test]
fn random_products_of_doubles_have_the_recorded_bits() {
    sample::floats_have_the_recorded_bits::<f64>();
}

#[test]
fn random_products_of_singles_have_the_recorded_bits() {
    sample::floats_have_the_recorded_bits::<f32>();
}

#[test]
fn random_products_of_integers_have_the_recorded_bits() {
    sample::integers_have_the_recorded_bits();
}

/// What the other tests run on: the vector instances of this build, not only the portable one.
#[cfg(target_arch = "wasm32")]
#[test]
fn the_build_has_its_instance() {
    let relaxed = cfg!(target_feature = "relaxed-simd");
    let expected = if relaxed {
        "wasm simd128+relaxed"
    } else {
        "wasm simd128"
    };
    assert_eq!(gemmesh_kernel::instance(), expected);
    // Chromium on machines with a fused instruction fuses; elsewhere the class is not offered.
    let first = <f64 as gemmesh_kernel::Scalar>::kernels().next().unwrap();
    assert_eq!(
        gemmesh_kernel::supports(gemmesh_kernel::Class::Fused),
        first.class() == gemmesh_kernel::Class::Fused
    );
}
