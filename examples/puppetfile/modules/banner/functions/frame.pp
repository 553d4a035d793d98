# A text between two lines.
function banner::frame(String $text) >> String {
  "----\n${text}\n----\n"
}
