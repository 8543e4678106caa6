//! What is written.

use std::path::Path;

use super::*;

#[test]
fn a_form_is_known_by_name_type_and_first_bytes() {
    assert_eq!(Format::from_path(Path::new("a/B.NPY")), Some(Format::Npy));
    assert_eq!(Format::from_path(Path::new("b.mtx")), Some(Format::Mtx));
    assert_eq!(Format::from_path(Path::new("npy")), None);
    assert_eq!(
        Format::from_content_type("Text/CSV; charset=utf-8"),
        Some(Format::Csv)
    );
    assert_eq!(Format::from_content_type("application/octet-stream"), None);
    assert_eq!(Format::sniff(b"\x93NUMPY\x01"), Some(Format::Npy));
    assert_eq!(Format::sniff(b"%%MATRIXMARKET matrix"), Some(Format::Mtx));
    assert_eq!(Format::sniff(b"\xef\xbb\xbf\n-1.5;2"), Some(Format::Csv));
    assert_eq!(Format::sniff(b" [[1]]"), Some(Format::Json));
    assert_eq!(Format::sniff(b"PK\x03\x04\0\0"), None);
    assert_eq!(Format::sniff(b""), None);
}

#[test]
fn elements_are_printed_short() {
    let matrix = floats(&[[58.0, 0.1, -0.0], [1e300, f64::NAN, f64::NEG_INFINITY]]);
    assert_eq!(text(&matrix, Format::Csv), "58,0.1,-0\n1e300,nan,-inf\n");
    assert_eq!(
        text(&matrix, Format::Json),
        "{\"rows\":2,\"cols\":3,\"dtype\":\"f64\",\"data\":[[58,0.1,-0.0],[1e300,\"NaN\",\"-Infinity\"]]}\n"
    );
    assert_eq!(
        text(&matrix, Format::Mtx),
        "%%MatrixMarket matrix array real general\n2 3\n58\n1e300\n0.1\nnan\n-0\n-inf\n"
    );
    let matrix = integers(&[
        ["9007199254740992", "-9007199254740993"],
        ["0", "0"],
        ["0", "0"],
        ["0", "0"],
    ]);
    assert_eq!(
        text(&matrix, Format::Json),
        "{\"rows\":4,\"cols\":2,\"dtype\":\"int\",\"data\":[[9007199254740992,\"-9007199254740993\"],\
         [0,0],[0,0],[0,0]]}\n"
    );
    assert_eq!(
        text(&matrix, Format::Mtx),
        "%%MatrixMarket matrix coordinate integer general\n4 2 2\n1 1 9007199254740992\n\
         1 2 -9007199254740993\n"
    );
    let single = Memory::of(
        1,
        2,
        Dtype::F32,
        vec![Value::F32(0.1), Value::F32(16_777_216.0)],
    );
    assert_eq!(text(&single, Format::Csv), "0.1,16777216\n");
}

#[test]
fn only_integers_of_64_bits_can_be_npy() {
    let check = |rows: &[[&str; 1]], expected: Result<&str, &str>| {
        let mut matrix = integers(rows);
        let found = export::check(&mut matrix, Format::Npy).unwrap();
        match expected {
            Ok(descr) => {
                assert_eq!(found, Ok(()));
                let bytes = write(matrix, Format::Npy);
                assert!(String::from_utf8_lossy(&bytes).contains(descr), "{rows:?}");
            }
            Err(code) => {
                let error = found.unwrap_err();
                assert_eq!((error.code, error.status), (code, 422));
                assert!(error.hint.contains("csv") && error.hint.contains("mtx"));
            }
        }
        assert_eq!(
            export::check(&mut integers(rows), Format::Csv).unwrap(),
            Ok(())
        );
    };
    check(
        &[["-9223372036854775808"], ["9223372036854775807"]],
        Ok("<i8"),
    );
    check(&[["18446744073709551615"], ["0"]], Ok("<u8"));
    check(&[["18446744073709551615"], ["-1"]], Err("overflows_npy"));
    check(&[["-9223372036854775809"]], Err("overflows_npy"));
    check(&[["18446744073709551616"]], Err("overflows_npy"));
}

#[test]
fn npyz_agrees_on_files_of_both_sides() {
    use npyz::WriterBuilder as _;
    let values: Vec<f64> = (0..6).map(|i| f64::from(i) / 7.0).collect();
    for order in [npyz::Order::C, npyz::Order::Fortran] {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::<f64>::new()
            .default_dtype()
            .shape(&[2, 3])
            .order(order)
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
        let read = read_bytes(Format::Npy, &bytes, None, MEMORY).unwrap();
        let written = write(read, Format::Npy);
        let ours = npyz::NpyFile::new(&written[..]).unwrap();
        assert_eq!((ours.order(), ours.shape()), (npyz::Order::C, &[2, 3][..]));
        let expected = match order {
            npyz::Order::C => values.clone(),
            npyz::Order::Fortran => [0, 2, 4, 1, 3, 5].map(|i| values[i]).to_vec(),
        };
        assert_eq!(ours.into_vec::<f64>().unwrap(), expected);
    }
}

#[test]
fn matrices_of_many_pieces_read_back() {
    for (rows, cols) in [(1_500, 700), (3, 300_000), (300_000, 3), (1, 1_000_000)] {
        let values = (0..rows * cols).map(|i| Value::F64(i as f64)).collect();
        let matrix = Memory::of(rows, cols, Dtype::F64, values);
        for format in [Format::Npy, Format::Csv, Format::Mtx] {
            let read = read_bytes(format, &write(matrix.clone(), format), None, MEMORY).unwrap();
            assert!(read == matrix, "{rows} × {cols} through {format:?}");
        }
        let mut fortran = npy_file(
            1,
            &format!("{{'descr': '>f8', 'fortran_order': True, 'shape': ({rows}, {cols}), }}"),
        );
        for i in 0..rows * cols {
            let at = i % rows * cols + i / rows;
            fortran.extend_from_slice(&(at as f64).to_be_bytes());
        }
        let read = read_bytes(Format::Npy, &fortran, None, MEMORY).unwrap();
        assert!(read == matrix, "{rows} × {cols} in Fortran order");
    }
}
