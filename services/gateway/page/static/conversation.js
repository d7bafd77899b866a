/** Return our address and the others of a conversation, as its newest message shows them. */
export function sidesOf(conversation) {
  const last = conversation.last_message;
  const ours = last ? (last.direction === "inbound" ? last.to : last.from) : null;
  const others = conversation.participants.filter((address) => address !== ours);
  return { ours, others: others.length ? others : conversation.participants };
}
