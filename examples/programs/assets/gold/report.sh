# /// subak
# description: A text for people; the program keeps it itself.
# stored_as: outside
# inputs: gold.by_segment
# input_format: csv
# ///
{
  echo "Customers as of ${SUBAK_AS_OF%% *}"
  tail -n +2 "$SUBAK_INPUTS/gold.by_segment.csv" | sort | while IFS=, read -r segment customers total; do
    echo "  $segment: $customers, $total"
  done
} > report.txt
