// Numbers as text, for people and for files.

// A position as m:ss.s, or h:mm:ss from an hour on.
export function clock(seconds, digits = 1) {
  const scale = 10 ** digits;
  const rounded = Math.round(Math.max(0, seconds) * scale) / scale;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// A duration in words: "30.0 s", "4 min 05 s", "1 h 02 min".
export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

// A size as "1.4 MB".
export function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

// A number with a fixed number of decimals; of two that are equally close the even one, as Python writes it.
export function fixed(value, digits) {
  const exact = value.toFixed(60);
  const cut = exact.length - 60 + digits;
  const isTie = exact[cut] === "5" && /^0*$/.test(exact.slice(cut + 1));
  return isTie && Number(exact[cut - 1]) % 2 === 0 ? exact.slice(0, cut) : value.toFixed(digits);
}
