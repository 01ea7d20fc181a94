//! The local time of the machine.

/// A time in the machine's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Year of the Gregorian calendar.
    pub year: i64,
    /// Month of the year, 1 to 12.
    pub month: i64,
    /// Day of the month, from 1.
    pub day: i64,
    /// Hour of the day, 0 to 23.
    pub hour: i64,
    /// Minute of the hour, 0 to 59.
    pub minute: i64,
    /// Second of the minute, 0 to 60 (leap seconds).
    pub second: i64,
    /// Day of the week, counted from Sunday, which is 0.
    pub weekday: i64,
    /// Day of the year, counted from 1.
    pub day_of_year: i64,
}

/// Returns the local time `seconds` after 1970-01-01 00:00 UTC, by the system's own rules (`TZ`, `/etc/localtime`);
/// `None` if the system cannot represent it.
pub fn local_time(seconds: i64) -> Option<LocalTime> {
    let mut time = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values; all zero is a valid `tm`.
    let time = unsafe {
        if libc::localtime_r(&libc::time_t::from(seconds), time.as_mut_ptr()).is_null() {
            return None;
        }
        time.assume_init()
    };
    Some(LocalTime {
        year: 1900 + i64::from(time.tm_year),
        month: 1 + i64::from(time.tm_mon),
        day: i64::from(time.tm_mday),
        hour: i64::from(time.tm_hour),
        minute: i64::from(time.tm_min),
        second: i64::from(time.tm_sec),
        weekday: i64::from(time.tm_wday),
        day_of_year: 1 + i64::from(time.tm_yday),
    })
}
