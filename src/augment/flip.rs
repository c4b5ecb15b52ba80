//! Horizontal flip: left becomes right.

use super::planes::Planes;

/// Mirrors a picture horizontally.
pub fn mirror(picture: &mut Planes) {
    let width = picture.width.max(1);
    for row in picture.data.chunks_exact_mut(width) {
        row.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_reversed_and_twice_is_never() {
        let mut picture = Planes { channels: 1, height: 2, width: 3, data: vec![1, 2, 3, 4, 5, 6] };
        mirror(&mut picture);
        assert_eq!(picture.data, [3, 2, 1, 6, 5, 4]);
        mirror(&mut picture);
        assert_eq!(picture.data, [1, 2, 3, 4, 5, 6]);
    }
}
