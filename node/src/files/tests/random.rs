//! Random matrices read back from every form; random bytes are refused or read, without harm.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_matrix_reads_back_from_every_form(matrix in matrices()) {
        for format in [Format::Npy, Format::Csv, Format::Mtx, Format::Json] {
            if export::check(&mut matrix.clone(), format).unwrap().is_err() {
                prop_assert_eq!(format, Format::Npy);
                continue;
            }
            let bytes = write(matrix.clone(), format);
            if bytes.len() > 32 {
                prop_assert_eq!(Format::sniff(&bytes[..32]), Some(format));
            }
            let dtype = Some(matrix.manifest.element.dtype);
            let read = read_bytes(format, &bytes, dtype, MEMORY);
            prop_assert_eq!(read.as_ref(), Ok(&matrix), "through {:?}", format);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(
        bytes in prop::collection::vec(any::<u8>(), 0..400), dtype in dtypes(),
    ) {
        for format in [Format::Npy, Format::Csv, Format::Mtx, Format::Json] {
            let _ = read_bytes(format, &bytes, Some(dtype), 1 << 20);
        }
    }

    #[test]
    fn nearly_right_files_are_refused_or_read(
        matrix in matrices(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<prop::sample::Index>(), dtype in dtypes(),
    ) {
        for format in [Format::Npy, Format::Csv, Format::Mtx, Format::Json] {
            if export::check(&mut matrix.clone(), format).unwrap().is_err() {
                continue;
            }
            let mut bytes = write(matrix.clone(), format);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read_bytes(format, &bytes, Some(dtype), 1 << 20);
            bytes.truncate(cut.index(bytes.len()));
            let _ = read_bytes(format, &bytes, None, 1 << 20);
        }
    }

    #[test]
    fn any_header_text_is_refused_or_read(text in "[{}()\\[\\]'\":, L0-9a-z<>|_]{0,60}") {
        let _ = read_bytes(Format::Npy, &npy_file(2, &text), None, 1 << 20);
        let text = format!("{{'descr': '<f8', 'fortran_order': True, 'shape': {text}");
        let _ = read_bytes(Format::Npy, &npy_file(1, &text), None, 1 << 20);
    }

    #[test]
    fn any_lines_are_refused_or_read(text in "[-+0-9.,;\t \"#\r\neEnaif]{0,80}", dtype in dtypes()) {
        let _ = read_bytes(Format::Csv, text.as_bytes(), Some(dtype), 1 << 20);
        for banner in ["coordinate real general", "array integer symmetric"] {
            let text = format!("%%MatrixMarket matrix {banner}\n2 2 1\n{text}");
            let _ = read_bytes(Format::Mtx, text.as_bytes(), Some(dtype), 1 << 20);
        }
    }

    #[test]
    fn magnitudes_are_measured(values in prop::collection::vec(big_integers(), 1..5)) {
        let matrix = Memory::of(1, values.len() as u64, Dtype::Int, values.clone());
        let element = matrix.manifest.element;
        let widest = values.iter().map(|value| match value {
            Value::Int(value) => BigInt::from(*value).bits(),
            Value::Big(value) => value.bits(),
            _ => unreachable!(),
        });
        prop_assert_eq!(u64::from(number::magnitude_bits(&matrix.bytes, element.limbs)), widest.max().unwrap());
        let decoded: Vec<Value> =
            matrix.bytes.chunks_exact(element.bytes() as usize).map(|b| number::decode(b, element)).collect();
        prop_assert_eq!(decoded, values);
        if element.limbs > 1 {
            let narrower = ElementType { limbs: element.limbs - 1, ..element };
            let fits = matrix.values().iter().all(|value| number::fits(value, narrower));
            prop_assert!(!fits, "one limb fewer would do");
        }
    }

    #[test]
    fn integers_in_any_spelling_are_exact(digits in "[1-9][0-9]{0,60}", zeros in 0usize..30, negative: bool) {
        let expected: BigInt = format!("{}{digits}{}", if negative { "-" } else { "" }, "0".repeat(zeros))
            .parse().unwrap();
        let sign = if negative { "-" } else { "+" };
        for text in [
            format!("{sign}00{digits}{}", "0".repeat(zeros)),
            format!("{sign}{digits}e{zeros}"),
            format!(" {sign}{digits}{}.000 ", "0".repeat(zeros)),
            format!("{sign}0.{digits}E+{}", digits.len() + zeros),
            format!("{sign}{digits}{}e-5", "0".repeat(zeros + 5)),
        ] {
            let value = match number::parse(text.as_bytes(), Dtype::Int).unwrap() {
                Value::Int(value) => BigInt::from(value),
                Value::Big(value) => value,
                _ => unreachable!(),
            };
            prop_assert_eq!(&value, &expected, "{}", text);
        }
    }
}

fn dtypes() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::F64, Dtype::F32, Dtype::Int])
}

fn big_integers() -> impl Strategy<Value = Value> {
    let near_powers = (0u32..300, -1i64..=1, any::<bool>()).prop_map(|(power, off, negative)| {
        let value = (BigInt::from(1) << power) + off;
        if negative { -value } else { value }
    });
    prop_oneof![any::<i64>().prop_map(BigInt::from), near_powers].prop_map(|value| {
        match i64::try_from(&value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::Big(value),
        }
    })
}

fn matrices() -> impl Strategy<Value = Memory> {
    (1u64..8, 1u64..8, dtypes(), any::<bool>()).prop_flat_map(|(rows, cols, dtype, sparse)| {
        let full = match dtype {
            Dtype::F64 => any::<u64>()
                .prop_map(|bits| Value::F64(f64::from_bits(bits)))
                .boxed(),
            Dtype::F32 => any::<u32>()
                .prop_map(|bits| Value::F32(f32::from_bits(bits)))
                .boxed(),
            Dtype::Int => big_integers().boxed(),
            Dtype::Residues => unreachable!("not among the types that are read"),
        };
        let zero = number::convert(Value::Int(0), dtype).unwrap();
        let value = prop_oneof![if sparse { 8 } else { 1 } => Just(zero), 3 => full];
        prop::collection::vec(value, (rows * cols) as usize)
            .prop_map(move |values| Memory::of(rows, cols, dtype, values))
    })
}
