// The number of segments of an SMS, counted as the service counts them (3GPP TS 23.038 and 23.040).

const BASIC = new Set(
  "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà",
);
const ESCAPED = new Set("\f^{}\\[~]|€");

function count(sizes, alone, each) {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (total <= alone) return { segments: 1, used: total, room: alone };
  let segments = 1;
  let used = 0;
  for (const size of sizes) {
    if (used + size > each) {
      segments += 1;
      used = 0;
    }
    used += size;
  }
  return { segments, used, room: each };
}

/** Return the encoding, the number of segments, and how much of the last one is used. */
export function segmentsOf(text) {
  const characters = [...text];
  if (characters.every((character) => BASIC.has(character) || ESCAPED.has(character))) {
    const sizes = characters.map((character) => (ESCAPED.has(character) ? 2 : 1));
    return { encoding: "GSM-7", ...count(sizes, 160, 153) };
  }
  return { encoding: "UCS-2", ...count(characters.map((character) => character.length), 70, 67) };
}
