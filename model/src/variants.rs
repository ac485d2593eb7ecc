//! The variants of an enum as an array.

/// Every variant of an enum whose variants [`strum`] lists, as an array.
pub(crate) const fn all<T: Copy, const N: usize>(variants: &[T]) -> [T; N] {
    match variants.first_chunk() {
        Some(all) => *all,
        None => panic!("there are fewer variants"),
    }
}
