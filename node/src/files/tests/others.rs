//! Files as other programs write them.

use super::*;

#[test]
fn files_of_others_are_read() {
    let numbers = [[1.0, -2.5], [3e300, 0.1]];
    check(Format::Csv, b"1,-2.5\n3e300,0.1\n", None, floats(&numbers));
    check(
        Format::Csv,
        b"\xef\xbb\xbf1 ; -2.5\r\n\"3e300\";0.1\r\n\r\n\n",
        None,
        floats(&numbers),
    );
    check(
        Format::Csv,
        b"# made by savetxt\n1\t-2.5\n# more\n3e300\t.1",
        None,
        floats(&numbers),
    );
    check(
        Format::Csv,
        b"  1   -2.5 \r  3e300\t0.1  \r",
        None,
        floats(&numbers),
    );
    check(
        Format::Csv,
        b"nan,-inf\nInfinity,-0\n",
        None,
        floats(&[[f64::NAN, f64::NEG_INFINITY], [f64::INFINITY, -0.0]]),
    );
    check(Format::Csv, b"7", None, floats(&[[7.0]]));
    check(
        Format::Csv,
        b"1,2.0\n3e2,-18446744073709551616\n",
        Some(Dtype::Int),
        integers(&[["1", "2"], ["300", "-18446744073709551616"]]),
    );
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix array real general\n%x\n\n2 2\n1\n3e300\n-2.5\n0.1\n",
        None,
        floats(&numbers),
    );
    check(
        Format::Mtx,
        b"%%matrixmarket MATRIX array real general\n2 2\n1 3e300 -2.5 0.1",
        None,
        floats(&numbers),
    );
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix coordinate integer general\n2 2 2\n2 1 -4\n1 2 9\n",
        None,
        integers(&[["0", "9"], ["-4", "0"]]),
    );
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix coordinate pattern symmetric\n2 2 2\n1 1\n2 1\n",
        None,
        integers(&[["1", "1"], ["1", "0"]]),
    );
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 1\n2 1 5\n",
        None,
        floats(&[[0.0, -5.0], [5.0, 0.0]]),
    );
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix array integer symmetric\n2 2\n1\n2\n3\n",
        None,
        integers(&[["1", "2"], ["2", "3"]]),
    );
    check(Format::Mtx,
        b"%%MatrixMarket matrix coordinate integer skew-symmetric\n2 2 1\n2 1 -9223372036854775808\n",
        None, integers(&[["0", "9223372036854775808"], ["-9223372036854775808", "0"]]));
    check(
        Format::Mtx,
        b"%%MatrixMarket matrix coordinate real general\n2 2 0\n",
        None,
        floats(&[[0.0, 0.0], [0.0, 0.0]]),
    );
    check(
        Format::Json,
        br#"[[1, -2.5], ["3e300", 0.1]]"#,
        None,
        floats(&numbers),
    );
    check(
        Format::Json,
        br#"{"dtype": "int", "data": [["123456789012345678901", 3.0]]}"#,
        None,
        integers(&[["123456789012345678901", "3"]]),
    );
    check(
        Format::Json,
        b"[[123456789012345678901234567890, -1e3, 2.0]]",
        Some(Dtype::Int),
        integers(&[["123456789012345678901234567890", "-1000", "2"]]),
    );
    check(
        Format::Mtx,
        b"\xef\xbb\xbf%%MatrixMarket matrix coordinate unsigned-integer general\n1 1 1\n1 1 18446744073709551615\n",
        None,
        integers(&[["18446744073709551615"]]),
    );
}

#[test]
fn text_without_a_type_keeps_digits_that_f64_would_lose() {
    let kept = |format, text: &str, expected: Memory| {
        let options = ReadOptions {
            dtype: None,
            keep_digits: true,
        };
        let found = read_with(format, text.as_bytes(), options, MEMORY);
        assert_eq!(found.as_ref(), Ok(&expected), "{text:?}");
    };
    let long = [["9007199254740993", "-2"]];
    kept(Format::Csv, "9007199254740993,-2\n", integers(&long));
    kept(
        Format::Csv,
        "+1\n\"123456789012345678901234567890\"\n",
        integers(&[["1"], ["123456789012345678901234567890"]]),
    );
    kept(
        Format::Json,
        "[[9007199254740993, \"-2\"]]",
        integers(&long),
    );
    // Without loss, without digits alone, or when not asked for, text is f64.
    kept(Format::Csv, "1,-2\n", floats(&[[1.0, -2.0]]));
    kept(
        Format::Csv,
        "18446744073709551616\n",
        floats(&[[2f64.powi(64)]]),
    );
    for other in ["0.5", "1e300", "nan", "-inf"] {
        let text = format!("9007199254740993,{other}\n");
        let value: f64 = other.parse().unwrap();
        kept(Format::Csv, &text, floats(&[[9007199254740992.0, value]]));
    }
    let text = "[[9007199254740993, 0.5]]";
    kept(Format::Json, text, floats(&[[9007199254740992.0, 0.5]]));
    let text = "{\"dtype\": \"f64\", \"data\": [[9007199254740993]]}";
    kept(Format::Json, text, floats(&[[9007199254740992.0]]));
    check(
        Format::Csv,
        b"9007199254740993\n",
        None,
        floats(&[[9007199254740992.0]]),
    );
}

#[test]
fn npy_files_of_any_order_are_read() {
    let header = |descr: &str, fortran: &str, shape: &str| {
        npy_file(
            1,
            &format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n"),
        )
    };
    let expected = || floats(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let values = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0];
    let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    let turned: Vec<u8> = [1.0f64, 4.0, 2.0, 5.0, 3.0, 6.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    check(
        Format::Npy,
        &[header("<f8", "False", "(2, 3)"), little.clone()].concat(),
        None,
        expected(),
    );
    check(
        Format::Npy,
        &[header(">f8", "False", "(2, 3)"), big].concat(),
        None,
        expected(),
    );
    check(
        Format::Npy,
        &[header("<f8", "True", "(2L, 3L)"), turned].concat(),
        None,
        expected(),
    );
    let version_3 = "{\"shape\":(2,3),\"descr\":\"<f8\",\"fortran_order\":False}";
    check(
        Format::Npy,
        &[npy_file(3, version_3), little].concat(),
        None,
        expected(),
    );
    let bytes = [header("|i1", "False", "(1, 2)"), vec![0xff, 2]].concat();
    check(Format::Npy, &bytes, None, integers(&[["-1", "2"]]));
    check(
        Format::Npy,
        &bytes,
        Some(Dtype::F64),
        floats(&[[-1.0, 2.0]]),
    );
    let bytes = [header(">u8", "False", "(1, 1)"), vec![0xff; 8]].concat();
    check(
        Format::Npy,
        &bytes,
        None,
        integers(&[["18446744073709551615"]]),
    );
    let bytes = [header(">i2", "True", "(2, 1)"), vec![0x80, 0, 0, 1]].concat();
    check(Format::Npy, &bytes, None, integers(&[["-32768"], ["1"]]));
    let bytes = [
        header("<f8", "False", "(1, 1)"),
        1e30f64.to_le_bytes().to_vec(),
    ]
    .concat();
    check(
        Format::Npy,
        &bytes,
        Some(Dtype::Int),
        integers(&[["1000000000000000019884624838656"]]),
    );
}
