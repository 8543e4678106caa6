//! What a code costs, in numbers that do not depend on a device.

use super::Parameters;
use crate::matrix::KernelError;

/// The cost of one product of m × k by k × n over one field. Words are field elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Multiplications on all devices over those of the plain product: N/(K·p·L).
    pub compute: f64,
    /// Words to all devices: N·(m·k/(K·p) + k·n/(p·L)).
    pub up: f64,
    /// Words of the R answers that are needed: R·m·n/(K·L).
    pub down: f64,
    /// Random words: T·(m·k/(K·p) + k·n/(p·L)).
    pub masks: f64,
    /// Multiply-adds of the coordinator for the shares: N·(K·p + T)·m·k/(K·p) + N·(p·L + T)·k·n/(p·L).
    pub encoding: f64,
    /// Multiply-adds of the coordinator for C: R·m·n.
    pub decoding: f64,
}

/// The cost of these parameters for m × k by k × n. Parts are taken as equal: edges add less than one row
/// or column to each.
///
/// # Errors
/// As [`Parameters::answers`].
pub fn cost(parameters: &Parameters, [m, k, n]: [u64; 3]) -> Result<Cost, KernelError> {
    let answers = parameters.answers()? as f64;
    let shares = parameters.shares()? as f64;
    let t = parameters.colluders as f64;
    let [m, k, n] = [m, k, n].map(|size| size as f64);
    let [rows, inner, cols] = parameters.cut().map(|parts| parts as f64);
    let (left, right) = (m * k / (rows * inner), k * n / (inner * cols));
    Ok(Cost {
        compute: shares / (rows * inner * cols),
        up: shares * (left + right),
        down: answers * m * n / (rows * cols),
        masks: t * (left + right),
        encoding: shares * ((rows * inner + t) * left + (inner * cols + t) * right),
        decoding: answers * m * n,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::{Scheme, gasp};

    /// Words up and down in units of n², total compute.
    fn words(scheme: Scheme, colluders: usize) -> (usize, f64, f64, f64) {
        let parameters = Parameters {
            scheme,
            colluders,
            spares: 0,
        };
        let n = 1200;
        let cost = cost(&parameters, [n; 3]).unwrap();
        let square = (n * n) as f64;
        let round = |x: f64| libm::round(100.0 * x) / 100.0;
        (
            parameters.shares().unwrap(),
            round(cost.compute),
            round(cost.up / square),
            round(cost.down / square),
        )
    }

    #[test]
    fn one_curious_device_costs_what_theory_says() {
        let inner = |parts| words(Scheme::InnerProduct { parts }, 1);
        assert_eq!(inner(1), (3, 3.0, 6.0, 3.0));
        assert_eq!(inner(2), (4, 2.0, 4.0, 4.0));
        assert_eq!(inner(3), (5, 1.67, 3.33, 5.0));
        assert_eq!(inner(6), (8, 1.33, 2.67, 8.0));
        assert_eq!(inner(10), (12, 1.2, 2.4, 12.0));
        let outer = |rows, cols| {
            let (chain, _) = gasp::shortest(rows, cols, 1).unwrap();
            words(Scheme::Gasp { rows, cols, chain }, 1)
        };
        assert_eq!(outer(2, 1), (5, 2.5, 7.5, 2.5));
        assert_eq!(outer(2, 2), (8, 2.0, 8.0, 2.0));
        assert_eq!(outer(3, 2), (11, 1.83, 9.17, 1.83));
        assert_eq!(outer(3, 3), (15, 1.67, 10.0, 1.67));
        assert_eq!(outer(4, 3), (19, 1.58, 11.08, 1.58));
    }

    #[test]
    fn degree_tables_have_the_sizes_of_the_published_formulas() {
        let answers = |rows, cols, colluders, chain| {
            let scheme = Scheme::Gasp { rows, cols, chain };
            let parameters = Parameters {
                scheme,
                colluders,
                spares: 0,
            };
            parameters.answers().unwrap()
        };
        // arXiv 1812.09962, theorems on GASP_big and GASP_small, for L <= K.
        for k in 1..=7usize {
            for l in 1..=k {
                for t in 1..=6usize {
                    let big = if t < k {
                        (k + t) * (l + 1) - 1
                    } else {
                        2 * k * l + 2 * t - 1
                    };
                    assert_eq!(answers(k, l, t, k.min(t)), big, "big, {k} {l} {t}");
                    let small = match t {
                        _ if l == 1 && t < k => 2 * k + t * t,
                        _ if l == 1 => k * t + k + t,
                        1 => k * l + k + l,
                        _ if t < k => k * l + k + l + t * t + t - 3,
                        _ if t <= k * (l - 1) + 1 => k * l + k * t + l + 2 * t - 3 - (t - 2) / k,
                        _ => 2 * k * l + k * t - k + t,
                    };
                    assert_eq!(answers(k, l, t, 1), small, "small, {k} {l} {t}");
                    // A and B change places.
                    assert_eq!(answers(l, k, t, 1), small);
                    assert!(gasp::shortest(k, l, t).unwrap().1 <= big.min(small));
                }
            }
        }
        // T = 2 and T = 3.
        for (k, l, t, expected) in [
            (2, 2, 2, 11),
            (3, 2, 2, 14),
            (3, 3, 2, 18),
            (2, 2, 3, 13),
            (3, 2, 3, 17),
            (4, 2, 3, 20),
        ] {
            assert_eq!(gasp::shortest(k, l, t).unwrap().1, expected, "{k} {l} {t}");
        }
    }
}
