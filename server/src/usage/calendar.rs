//! Minutes, days and months, by the clock and the calendar of the configured time zone.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};

use crate::store::{MINUTE_MS, QUARTER_MS};

/// From when to when, in milliseconds since 1970; the end is not within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its beginning.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
}

/// In how much time, by the clock and the calendar of the configured time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// From one full minute to the next.
    Minute,
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
}

impl Per {
    pub(super) const ALL: [Self; 3] = [Self::Minute, Self::Day, Self::Month];

    /// As written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "min",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The stretches that its windows are made of in every zone, in milliseconds.
    pub(super) fn slot_ms(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Day | Self::Month => QUARTER_MS,
        }
    }

    /// The one that a time is in.
    #[must_use]
    pub(super) fn window(self, at: Timestamp, zone: &TimeZone) -> Window {
        const MINUTE: i64 = 60_000;
        let ms = at.as_millisecond();
        let whole = || {
            let from = ms.div_euclid(MINUTE) * MINUTE;
            Window { from_ms: from, to_ms: from + MINUTE }
        };
        let local = at.to_zoned(zone.clone());
        let window = |from: Result<Zoned, jiff::Error>, span: jiff::Span| {
            let from = from.ok()?;
            let to = from.checked_add(span).ok()?.start_of_day().ok()?;
            let ms = |at: &Zoned| at.timestamp().as_millisecond();
            Some(Window { from_ms: ms(&from), to_ms: ms(&to) })
        };
        match self {
            Self::Minute => None,
            Self::Day => window(local.start_of_day(), 1.day()),
            Self::Month => {
                window(local.first_of_month().and_then(|day| day.start_of_day()), 1.month())
            }
        }
        // Days of years that no calendar has: nothing but a clock that is wrong gets here.
        .unwrap_or_else(whole)
    }
}

/// What figures are put together by, in the configured time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// All of the time.
    Time,
    /// Each minute.
    Minute,
    /// Each hour.
    Hour,
    /// Each day.
    Day,
    /// Each month.
    Month,
}

impl Every {
    /// When the one that a time is in begins.
    #[must_use]
    pub fn begin(self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        let from = match self {
            Self::Time => return at,
            Self::Minute => Per::Minute.window(at, zone).from_ms,
            Self::Day => Per::Day.window(at, zone).from_ms,
            Self::Month => Per::Month.window(at, zone).from_ms,
            Self::Hour => {
                // Hours of some zones begin at half past.
                let past = i64::from(at.to_zoned(zone.clone()).minute());
                Per::Minute.window(at, zone).from_ms - past * 60_000
            }
        };
        Timestamp::from_millisecond(from).unwrap_or(at)
    }

    /// From when to when the one is that a time is in; all of the time has no end.
    #[must_use]
    pub fn stretch(self, at: Timestamp, zone: &TimeZone) -> (Timestamp, Timestamp) {
        const HOUR: SignedDuration = SignedDuration::from_hours(1);
        let per = match self {
            Self::Time => return (at, Timestamp::MAX),
            Self::Hour => {
                let from = self.begin(at, zone);
                return (from, from.checked_add(HOUR).unwrap_or(Timestamp::MAX));
            }
            Self::Minute => Per::Minute,
            Self::Day => Per::Day,
            Self::Month => Per::Month,
        };
        let window = per.window(at, zone);
        let time = |ms| Timestamp::from_millisecond(ms).unwrap_or(at);
        (time(window.from_ms), time(window.to_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::Per;

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
        let at = "2026-11-30T16:30:15.5Z".parse().unwrap();
        let window = |per: Per| {
            let window = per.window(at, &zone);
            [window.from_ms, window.to_ms]
                .map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string())
        };
        assert_eq!(window(Per::Minute), ["2026-11-30T16:30:00Z", "2026-11-30T16:31:00Z"]);
        assert_eq!(window(Per::Day), ["2026-11-30T16:00:00Z", "2026-12-01T16:00:00Z"]);
        assert_eq!(window(Per::Month), ["2026-11-30T16:00:00Z", "2026-12-31T16:00:00Z"]);
        // A day of 25 hours.
        let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let day = Per::Day.window("2026-10-25T12:00:00Z".parse().unwrap(), &zone);
        assert_eq!(day.to_ms - day.from_ms, 25 * 3_600_000);
    }
}
