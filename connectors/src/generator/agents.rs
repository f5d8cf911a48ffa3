//! User agents as they are seen in the logs of a public web service: browsers, phones, tablets, and programs that say what they are.
//!
//! The strings are those that such programs send (versions of around January 2026; most browsers freeze the details); weights are rough
//! shares of traffic, invented within reason. Not here: programs that claim to be browsers; a workload makes those by sending one of
//! [`PEOPLE`] at a machine's pace.

/// What sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Desktop,
    Phone,
    Tablet,
    /// A games console.
    Other,
}

/// A user agent that people use.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    pub device: Device,
    /// Relative frequency.
    pub weight: u32,
    pub text: &'static str,
}

const fn agent(device: Device, weight: u32, text: &'static str) -> Agent {
    Agent { device, weight, text }
}

/// What people use. One agent a line.
#[rustfmt::skip]
pub const PEOPLE: &[Agent] = &[
    agent(Device::Desktop, 120, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"),
    agent(Device::Desktop, 45, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"),
    agent(Device::Desktop, 50, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36 Edg/143.0.0.0"),
    agent(Device::Desktop, 25, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:146.0) Gecko/20100101 Firefox/146.0"),
    agent(Device::Desktop, 40, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"),
    agent(Device::Desktop, 38, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"),
    agent(Device::Desktop, 8, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:146.0) Gecko/20100101 Firefox/146.0"),
    agent(Device::Desktop, 10, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"),
    agent(Device::Desktop, 6, "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0"),
    agent(Device::Desktop, 6, "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"),
    agent(Device::Desktop, 9, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 OPR/126.0.0.0"),
    agent(Device::Desktop, 2, "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko"),
    agent(Device::Phone, 130, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"),
    agent(Device::Phone, 40, "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1"),
    agent(Device::Phone, 20, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/143.0.7499.92 Mobile/15E148 Safari/604.1"),
    agent(Device::Phone, 24, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 380.0.0.28.109 (iPhone15,2; iOS 18_5; de_DE; de; scale=3.00; 1179x2556)"),
    agent(Device::Phone, 150, "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36"),
    agent(Device::Phone, 30, "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"),
    agent(Device::Phone, 12, "Mozilla/5.0 (Linux; Android 13; Pixel 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.7444.171 Mobile Safari/537.36"),
    agent(Device::Phone, 8, "Mozilla/5.0 (Android 15; Mobile; rv:146.0) Gecko/146.0 Firefox/146.0"),
    agent(Device::Phone, 14, "Mozilla/5.0 (Linux; Android 12; Redmi Note 11 Build/SKQ1.211103.001; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/140.0.7339.207 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/520.0.0.43.97;]"),
    agent(Device::Tablet, 22, "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1"),
    agent(Device::Tablet, 9, "Mozilla/5.0 (Linux; Android 13; SM-X200) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"),
    agent(Device::Tablet, 4, "Mozilla/5.0 (Linux; Android 11; Lenovo TB-X606F) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"),
    agent(Device::Other, 3, "Mozilla/5.0 (PlayStation 4 11.50) AppleWebKit/605.1.15 (KHTML, like Gecko)"),
    agent(Device::Other, 2, "Mozilla/5.0 (PlayStation; PlayStation 5/9.60) AppleWebKit/605.1.15 (KHTML, like Gecko)"),
];

/// What programs that say so use, with relative frequencies: crawlers, link previews, monitors, HTTP libraries, headless browsers.
#[rustfmt::skip]
pub const ROBOTS: &[(u32, &str)] = &[
    (30, "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (10, "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.7499.40 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (14, "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36"),
    (8, "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)"),
    (8, "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)"),
    (6, "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)"),
    (8, "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"),
    (10, "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)"),
    (8, "Twitterbot/1.0"),
    (6, "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"),
    (5, "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)"),
    (4, "TelegramBot (like TwitterBot)"),
    (4, "WhatsApp/2.23.20.0"),
    (7, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/143.0.0.0 Safari/537.36"),
    (6, "curl/8.5.0"),
    (6, "python-requests/2.32.3"),
    (4, "Go-http-client/2.0"),
    (2, "Wget/1.21.4"),
    (3, "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)"),
];
