//! A QR code made of half blocks.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The QR code of `text`, two modules a character. With `coloured` it is black on white whatever
/// the terminal's colours are; without, it assumes light text on a dark ground.
///
/// `None` when `text` is too long for a code.
pub fn render(text: &str, coloured: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    renderer.quiet_zone(true);
    if coloured {
        // A set module is printed in the foreground colour, which is made black.
        let picture = renderer
            .dark_color(Dense1x2::Dark)
            .light_color(Dense1x2::Light)
            .build();
        let lines = picture
            .lines()
            .map(|line| format!("  \u{1b}[30;107m{line}\u{1b}[0m\n"));
        return Some(lines.collect());
    }
    let picture = renderer
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(picture.lines().map(|line| format!("  {line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_the_modules_of_the_code_and_a_quiet_zone() {
        let url = "http://192.168.1.7:8080";
        let code = QrCode::with_error_correction_level(url, EcLevel::L).unwrap();
        let width = code.width();
        let picture = render(url, false).unwrap();
        let lines: Vec<Vec<char>> = picture
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap().chars().collect())
            .collect();
        let at = |x: usize, y: usize| {
            let printed = match lines[y / 2][x] {
                '█' => true,
                '▀' => y.is_multiple_of(2),
                '▄' => y % 2 == 1,
                ' ' => false,
                other => panic!("{other:?}"),
            };
            // Light text on a dark ground: what is printed is a light module.
            !printed
        };
        let quiet = (lines[0].len() - width) / 2;
        assert_eq!(quiet, 4);
        for y in 0..width {
            for x in 0..width {
                let dark = code[(x, y)] == qrcode::Color::Dark;
                assert_eq!(at(x + quiet, y + quiet), dark, "module {x}, {y}");
            }
            for x in 0..quiet {
                assert!(!at(x, y + quiet), "quiet zone");
            }
        }
    }

    #[test]
    fn colours_are_set_on_each_line_and_reset() {
        let picture = render("http://127.0.0.1:8080", true).unwrap();
        for line in picture.lines() {
            assert!(
                line.starts_with("  \u{1b}[30;107m") && line.ends_with("\u{1b}[0m"),
                "{line:?}"
            );
        }
    }
}
