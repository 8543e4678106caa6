//! The planner of shared products and their arithmetic, which do not know each other, agree.

use gemmesh_kernel::coding::{self, Parameters, cost};
use gemmesh_protocol::coded::{Helper, Home, Product, Scheme, Wish, choose};
use gemmesh_protocol::id::DeviceId;

/// As the kernel names it.
fn parameters(scheme: Scheme, colluders: u32, spares: u32) -> Parameters {
    let number = |n: u32| n as usize;
    Parameters {
        scheme: match scheme {
            Scheme::Masked => unreachable!("not among the private ones"),
            Scheme::InnerProduct { parts } => coding::Scheme::InnerProduct {
                parts: number(parts),
            },
            Scheme::InnerProductAny { parts } => coding::Scheme::InnerProductAny {
                parts: number(parts),
            },
            Scheme::Gasp { rows, cols, chain } => coding::Scheme::Gasp {
                rows: number(rows),
                cols: number(cols),
                chain: number(chain),
            },
        },
        colluders: number(colluders),
        spares: match scheme {
            Scheme::InnerProduct { .. } => 0,
            _ => number(spares),
        },
    }
}

#[test]
fn what_is_planned_is_a_code_with_the_planned_numbers() {
    let home = Home {
        rate: 0.0,
        coding: 1e9,
    };
    let mut schemes = Vec::new();
    for colluders in 1..=4u32 {
        for spares in 0..=2u32 {
            for count in (2 * colluders + 1 + spares)..=20 {
                for (link, shape) in [
                    (1e10, [4_096, 4_096, 4_096]),
                    (1e6, [4_096, 64, 4_096]),
                    (1e7, [512, 2_048, 4_096]),
                ] {
                    let helpers: Vec<Helper> = (1..=count as u8)
                        .map(|id| Helper {
                            device: DeviceId([id; 32]),
                            rate: 1e9 * f64::from(id),
                            link,
                        })
                        .collect();
                    let product = Product {
                        shape,
                        primes: 1,
                        word_bytes: 1.0,
                    };
                    let wish = Wish { colluders, spares };
                    let choice = choose(&product, wish, home, &helpers).unwrap();
                    for sharing in choice.sharing.iter().chain(&choice.instead) {
                        let parameters = parameters(sharing.scheme, colluders, spares);
                        assert_eq!(parameters.answers(), Ok(sharing.answers as usize));
                        assert_eq!(parameters.shares(), Ok(sharing.shares as usize));
                        let cost = cost::cost(&parameters, shape).unwrap();
                        let close = |x: f64, y: f64| (x - y).abs() <= 1e-9 * y;
                        assert!(close(sharing.compute, cost.compute), "{sharing:?}");
                        assert!(close(sharing.bytes[0], cost.up), "{sharing:?}");
                        assert!(close(sharing.bytes[1], cost.down), "{sharing:?}");
                        if !schemes.contains(&parameters) {
                            schemes.push(parameters);
                        }
                    }
                }
            }
        }
    }
    let field = coding::Field::new(32_749).unwrap();
    for parameters in &schemes {
        coding::Code::new(*parameters, field).unwrap();
    }
    let gasp = |p: &&Parameters| matches!(p.scheme, coding::Scheme::Gasp { .. });
    assert!(schemes.len() > 50 && schemes.iter().filter(gasp).count() > 20);
}
